"""The requests that fuzz_server.py sends: good ones of every kind, and mutations of them."""

import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MODEL_PATH = "/predictions/cifar"
# TorchServe's own answer to more, config.properties: 413 without a body, before the handler sees anything.
MAX_REQUEST_BYTES = 6_553_500

# What no message to a client may hold: addresses, types and bytes as Python prints them.
PYTHON_INSIDES = re.compile(
    r"object at 0x|bytearray\(|(?:^|[\s(\[])b['\"]|\barray\(|dtype\(|<class |<built-in|Traceback"
)


@dataclass(frozen=True)
class Request:
    """What one request sends; `kind` is its row in the table."""

    kind: str
    body: bytes
    content_type: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = MODEL_PATH
    method: str = "POST"
    chunked: bool = False


# Good requests --------------------------------------------------------------------------------------------------------


def good_requests() -> list[Request]:
    """Make a request of every kind of the HTTP contract; all of them are answered with 200."""
    images = np.random.default_rng(5).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    return [*_good_json(images), *_good_binary(images), *_good_multipart(images)]


def _good_json(images: NDArray[np.uint8]) -> list[Request]:
    image, scaled = images[0], (images[0].astype(np.float32) / np.float32(255)).tolist()
    flats = images[:4].reshape(4, -1).tolist()

    def v2(datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
        return {"id": "fuzz", "inputs": [{"name": "images", "shape": shape, "datatype": datatype, "data": data}]}

    documents: list[tuple[str, Any]] = [
        ("JSON flat", {"image": flats[0]}),
        ("JSON nested", {"image": image.tolist(), "top_k": 3}),
        ("JSON 0–1", {"image": scaled, "max_value": 1}),
        ("JSON images", {"images": flats, "top_k": 10}),
        ("JSON instances", {"instances": images[:2].tolist()}),
        ("JSON bare list", flats[0]),
        ("JSON bare list", [image.tolist()]),
        ("JSON V2", v2("UINT8", [2, 32, 32, 3], images[:2].ravel().tolist())),
        ("JSON V2", v2("FP32", [1, 32, 32, 3], images[:1].tolist())),
    ]
    return [Request(kind, json.dumps(document).encode(), "application/json") for kind, document in documents]


def _good_binary(images: NDArray[np.uint8]) -> list[Request]:
    large = Image.fromarray(images[0]).resize((800, 600), Image.Resampling.BICUBIC)
    raw, npy = "application/octet-stream", "application/x-npy"
    return [
        Request("raw", images[0].tobytes(), raw),
        Request("raw", images[:5].tobytes(), raw, {"X-Top-K": "3"}),
        Request("raw 256", images.tobytes(), raw),
        Request("PNG", encode_image(images[0], "PNG"), "image/png"),
        Request("PNG", encode_image(large.convert("RGBA"), "PNG"), None),
        Request("JPEG", encode_image(images[0], "JPEG"), "image/jpeg"),
        Request("JPEG", encode_image(large, "JPEG"), "image/jpeg", {"X-Top-K": "1"}, method="PUT"),
        Request("JPEG", encode_image(large.resize((64, 48)), "JPEG", progressive=True), "image/jpeg"),
        Request(".npy", array_file(images[0]), npy),
        Request(".npy", array_file(images[:3].astype(np.float32)), npy),
        Request("no type", images[:2].tobytes(), None, method="PUT"),
        Request("no type", json.dumps({"image": images[0].tolist()}).encode(), None),
    ]


def _good_multipart(images: NDArray[np.uint8]) -> list[Request]:
    one, two = encode_image(images[0], "PNG"), encode_image(images[1], "JPEG")
    return [
        multipart([("cat", "cat.png", "image/png", one)]),
        multipart([("first", "a.png", "image/png", one), ("second", "b.jpg", "image/jpeg", two)]),
    ]


def encode_image(pixels: NDArray[np.uint8] | Image.Image, format_: str, **options: Any) -> bytes:
    """Encode an image."""
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, format_, **options)
    return file.getvalue()


def array_file(values: NDArray[Any]) -> bytes:
    """Encode an array as .npy, with a pickle where it holds objects."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def multipart(parts: Sequence[tuple[str, str | None, str | None, bytes]], boundary: str = "fuzz-boundary") -> Request:
    """Write a form of parts (field, file name, content type, content)."""
    body = b""
    for name, file_name, content_type, content in parts:
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        body += f'; filename="{file_name}"'.encode() if file_name is not None else b""
        body += f"\r\nContent-Type: {content_type}".encode() if content_type is not None else b""
        body += b"\r\n\r\n" + content + b"\r\n"
    return Request("multipart", body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")


# Mutated requests -----------------------------------------------------------------------------------------------------

Rng = random.Random
Change = Callable[[Request, Rng], Request]


def make_bad_request(good: Sequence[Request], seed: int, index: int) -> Request:
    """Make request number `index` of a run: a good one with one to three things changed, or noise.

    It may still be good; what it must be is answered.
    """
    rng = Rng(f"{seed}:{index}")
    if rng.random() < 0.03:
        return _noise(rng)
    request = rng.choice(good)
    if request.kind == "raw 256" and rng.random() < 0.8:  # 80 ms of a worker each
        request = replace(good[0], kind="JSON flat")
    own = _change_of(request)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = own if own is not None and rng.random() < 0.5 else rng.choice(_CHANGES)
        request = change(request, rng)
    return request


def _noise(rng: Rng) -> Request:
    """Nothing, text, random bytes, or more than the server takes."""
    size = rng.choice((0, 0, 1, 2, 7, 100, 3071, 3072, 3073, 6144, 50_000, rng.choice((1000, MAX_REQUEST_BYTES + 1))))
    byte = rng.choice((None, b"\0", b" ", b"[", b"{", b"\xff", b'"', b"-", b"%"))
    body = rng.randbytes(size) if byte is None else byte * size
    return Request("noise", body, rng.choice(CONTENT_TYPES), rng.choice(HEADERS))


CONTENT_TYPES: tuple[str | None, ...] = (
    None, "", "application/json", "application/json; charset=utf-16", "APPLICATION/JSON;charset=UTF-8",
    "application/json;;;=", "application/vnd.api+json", "text/json", "text/plain", "text/html; charset=nonsense",
    "application/octet-stream", "application/octet-stream; x=y", "binary/octet-stream", "image/png", "IMAGE/JPEG",
    "image/jpg", "image/gif", "image/webp", "image/svg+xml", "image/", "image/*", "*/*", "application/x-npy",
    "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8", "multipart/form-data",
    "multipart/form-data; boundary=", "multipart/form-data; boundary=other", "multipart/form-data; boundary=\"a b\"",
    "multipart/mixed; boundary=fuzz-boundary", "application/grpc", "application/xml", "a" * 300, "/", ";", "json",
    "application/json, image/png", "application/jso\u00f6n",
)  # fmt: skip

HEADERS: tuple[Mapping[str, str], ...] = (
    {}, {}, {}, {}, {"X-Top-K": "3"}, {"x-top-k": "10"}, {"X-TOP-K": "0"}, {"X-Top-K": "11"}, {"X-Top-K": "abc"},
    {"X-Top-K": ""}, {"X-Top-K": "1" * 3000}, {"X-Top-K": "\u00b2"}, {"X-Top-K": "-1"}, {"X-Top-K": "3.0"},
    {"X-Max-Value": "1"}, {"X-Max-Value": "255"}, {"X-Max-Value": "NaN"}, {"X-Max-Value": "True"},
    {"X-Top-K": "1", "x-top-k": "2"}, {"describe": "True"}, {"explain": "True"}, {"Describe": "true"},
    {"Explain": "1"}, {"body": "x"}, {"model_name": "other"}, {"url_path": "x"}, {"content-type2": "x"},
    {"Accept": "text/html"}, {"Accept": "*/*;q=0"}, {"Accept-Encoding": "gzip, br"}, {"Content-Encoding": "gzip"},
    {"Content-Language": "\u00e9\u00ff"}, {"Cookie": "a=b; " * 300}, {"Authorization": "Bearer none"},
    {"Expect": "100-continue"}, {"Connection": "close"}, {"TE": "trailers"}, {"Upgrade": "h2c"}, {"Range": "bytes=0-1"},
    {"X-Request-Id": "\u00e4" * 100}, {"ts_request_sequence_id": "1"}, {"If-None-Match": "*"}, {"Host": "example.com"},
    {"X-HTTP-Method-Override": "DELETE"}, {"Origin": "null"}, {"Content-Disposition": "form-data; name=x"},
    {f"X-{n}": "y" for n in range(60)},
)  # fmt: skip

PATHS = (MODEL_PATH, MODEL_PATH, f"{MODEL_PATH}?top_k=3", f"{MODEL_PATH}?top_k=x&max_value=%FF&body=1")


def _flip_bits(request: Request, rng: Rng) -> Request:
    body = bytearray(request.body)
    for _ in range(rng.choice((1, 1, 4, 64)) if body else 0):
        # Half of them where headers are.
        end = min(len(body), 200) if rng.random() < 0.5 else len(body)
        body[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return replace(request, body=bytes(body))


def _cut(request: Request, rng: Rng) -> Request:
    kept = rng.choice((0, 1, 8, len(request.body) - 1, len(request.body) - 2, rng.randrange(len(request.body) + 1)))
    return replace(request, body=request.body[: max(0, kept)])


def _drop(request: Request, rng: Rng) -> Request:
    start, end = _slice(request.body, rng)
    return replace(request, body=request.body[:start] + request.body[end:])


def _repeat(request: Request, rng: Rng) -> Request:
    if rng.random() < 0.3:
        return replace(request, body=request.body * rng.choice((2, 2, 3)))
    start, end = _slice(request.body, rng)
    return replace(request, body=request.body[:end] + request.body[start:])


def _insert(request: Request, rng: Rng) -> Request:
    start, _end = _slice(request.body, rng)
    pieces = (b"\0", b"\xff" * 4, b"\xef\xbb\xbf", b'"', b"]", b"[", b"\r\n--fuzz-boundary", b"\xed\xa0\x80", b"NaN",
              rng.randbytes(16), rng.randbytes(3072))  # fmt: skip
    return replace(request, body=request.body[:start] + rng.choice(pieces) + request.body[start:])


def _change_type(request: Request, rng: Rng) -> Request:
    return replace(request, content_type=rng.choice(CONTENT_TYPES))


def _change_way(request: Request, rng: Rng) -> Request:
    """Leave the body, and send it with other headers, to another path, by PUT or in chunks."""
    return replace(
        request,
        headers={**request.headers, **rng.choice(HEADERS)},
        path=rng.choice(PATHS),
        method=rng.choice(("POST", "POST", "PUT")),
        chunked=rng.random() < 0.2,
    )


def _slice(body: bytes, rng: Rng) -> tuple[int, int]:
    start = rng.randrange(len(body) + 1)
    return start, min(len(body), start + rng.choice((1, 4, 100, 3072)))


def _disguise(request: Request, rng: Rng) -> Request:
    """Send what is no raw pixels at a length of raw pixels: another kind of file, wider numbers, text."""
    start = rng.choice(_FILE_STARTS)
    pixels = np.frombuffer(rng.randbytes(3072), np.uint8)
    wide = rng.choice((pixels / 255, pixels / 127.5 - 1, pixels)).astype(rng.choice(_WIDE_TYPES)).tobytes()
    file = start + rng.randbytes(-len(start) % 3072)
    body = rng.choice((file, wide, wide * 3, start + request.body[: 3072 - len(start)], request.body))
    return replace(request, body=body, content_type=rng.choice(("application/octet-stream", None, "image/png")))


_FILE_STARTS = (
    b"GIF89a", b"II*\0", b"MM\0*", b"BM" + bytes(12) + b"\x28\0\0\0", b"\0\0\1\0\1\0", b"P6\n32 32\n255\n", b"PK\3\4",
    b"RIFF\0\0\0\0WEBP", b"8BPS\0\1", b"%PDF-1.7", b"\x1f\x8b\x08\0\0\0\0\0\0\3", b"\0\0\0\x1cftypavif",
    b"\x89HDF\r\n\x1a\n", b"\x80\4\x95", b"iVBORw0KGgo", b"\xef\xbb\xbf{", b"\xff\xfe[\0",
    b"<!DOCTYPE html>", b"", b"{", b"[0, ",
)  # fmt: skip
_WIDE_TYPES = ("<f4", ">f4", "<f8", "<f2", "<i8", "<i4", "<i2", ">f8")

_CHANGES: tuple[Change, ...] = (_flip_bits, _cut, _drop, _repeat, _insert, _disguise, _change_type, _change_way)


def _change_of(request: Request) -> Change | None:
    """Pick the mutation that knows how this kind of body is built."""
    starts: tuple[tuple[bytes, Change], ...] = (
        (b"\x89PNG", _change_png), (b"\xff\xd8\xff", _change_jpeg), (b"\x93NUMPY", _change_array), (b"{", _change_json),
        (b"[", _change_json), (b"--", _change_multipart),
    )  # fmt: skip
    return next((change for start, change in starts if request.body.startswith(start)), None)


# JSON

# Written into the text in place of these strings, because json.dumps would not write them, or only slowly.
_TEXTS: Mapping[str, str] = {
    "@surrogate": r'"\ud800"', "@digits": "9" * 5000, "@1e400": "1e400", "@tiny": "1e-400", "@minus": "-0",
    "@deep": "[" * 3000 + "]" * 3000, "@deeper": "[" * 100_000, "@object": '{"a":' * 1500 + "1" + "}" * 1500,
    "@lists": "[" + "[]," * 300_000 + "0]", "@keys": "{" + ",".join(f'"{n}":1' for n in range(20_000)) + "}",
    "@bare": "undefined", "@comment": "/* 1 */ 1", "@point": "1.", "@plus": "+1", "@hex": "0x10", "@nul": "\0",
}  # fmt: skip

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 255, 256, 0.5, 1.0, -0.0, 254.99999999999997, 255.0000001, 1e308, -1e-320, 2**31,
    2**63, 2**64, -(2**63), 10**400, float("nan"), float("inf"), float("-inf"), "", "7", "ship", "\u0000", "\U0001f600",
    "\u202e" * 50, "x" * 5000, [], {}, [[]], [None], {"": {}}, [0] * 3072, [[0] * 3072] * 257, [[[0] * 3] * 32] * 32,
    [[[0] * 32] * 32] * 3, "UINT8", "FP32", "BYTES", [1, 32, 32, 3], [0, 32, 32, 3], [-1, 32, 32, 3], [2**40, 3072],
    *_TEXTS,
)  # fmt: skip

_KEYS = ("image", "images", "instances", "inputs", "top_k", "max_value", "data", "shape", "datatype", "parameters",
         "id", "outputs", "signature_name", "body", "", "\ud800", "k" * 300, "__class__")  # fmt: skip


def _change_json(request: Request, rng: Rng) -> Request:
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):  # changed before
        return _flip_bits(request, rng)
    holder = [document]
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change_node(*_pick_node(holder, rng), rng)
    text = json.dumps(holder[0] if holder else None, ensure_ascii=rng.random() < 0.5)
    for name, literal in _TEXTS.items():
        text = text.replace(f'"{name}"', literal)
    if rng.random() < 0.1:
        text = text.replace("{", '{"image": [], ', 1)  # a key twice
    encoding = rng.choice(("utf-8",) * 12 + ("utf-16", "utf-8-sig", "latin-1", "utf-32"))
    return replace(request, body=text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace"))


def _pick_node(holder: list[Any], rng: Rng) -> tuple[Any, Any]:
    """Walk down some levels; return a container and a place in it."""
    container: Any = holder
    while True:
        place = rng.choice(list(container)) if isinstance(container, dict) else rng.randrange(len(container))
        below = container[place]
        if not isinstance(below, (list, dict)) or not below or rng.random() < 0.25:
            return container, place
        container = below


def _change_node(container: Any, place: Any, rng: Rng) -> None:
    value = container[place]
    chosen = rng.randrange(8)
    if chosen == 0 and isinstance(container, (list, dict)) and len(container) > 1:
        del container[place]
    elif chosen == 1:
        container[place] = [value]
    elif chosen == 2 and isinstance(value, list) and value:
        container[place] = value[0]
    elif chosen == 3 and isinstance(container, dict):
        container[rng.choice(_KEYS)] = container.pop(place)
    elif chosen == 4 and isinstance(container, dict):
        container[rng.choice(_KEYS)] = rng.choice(_VALUES)
    elif chosen == 5 and isinstance(container, list):
        container.insert(place, rng.choice(_VALUES))
    elif chosen == 6 and isinstance(value, (int, float, list)):
        container[place] = json.dumps(value)
    else:
        # A copy: of what is changed next, no other request must see the change.
        container[place] = json.loads(json.dumps(rng.choice(_VALUES)))


# Images


def _change_png(request: Request, rng: Rng) -> Request:
    """Change the header and fix its check sum, or put a chunk behind it."""
    body = request.body
    if len(body) < 33:
        return _flip_bits(request, rng)
    sizes = (0, 1, 31, 32, 33, 4096, 4097, 20_000, 2**31 - 1, 2**32 - 1)
    if rng.random() < 0.3:
        names = (b"acTL", b"tRNS", b"eXIf", b"gAMA", b"PLTE", b"iCCP", b"zTXt", b"IDAT", b"IEND", b"abcd")
        chunk = rng.choice(names) + rng.choice((rng.randbytes(rng.choice((0, 1, 8, 300))), *_METADATA))
        floods = rng.choice((1, 1, 1, 1, 100, 20_000))
        return replace(request, body=(body[:33] + _png_chunk(chunk) * floods + body[33:])[:MAX_REQUEST_BYTES])
    width, height, *rest = struct.unpack(">IIBBBBB", body[16:29])
    width, height = rng.choice((width, rng.choice(sizes))), rng.choice((height, rng.choice(sizes)))
    place = rng.randrange(len(rest) * 2)
    if place < len(rest):
        rest[place] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, *rest)
    return replace(request, body=body[:8] + _png_chunk(header) + body[33:])


_METADATA = (
    b"Raw profile type exif\0\0" + zlib.compress(bytes(2_000_000)),
    b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x"),
    b"icc\0\0" + zlib.compress(bytes(2_000_000)), b"MM\0*\0\0\0\x08\xff\xff" + b"\1\x12\0\3\0\0\0\1\0\6\0\0" * 99,
)  # fmt: skip


def _png_chunk(content: bytes) -> bytes:
    """Frame a chunk that begins with its name."""
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _change_jpeg(request: Request, rng: Rng) -> Request:
    """Change the size in the frame header, or put a segment behind the start."""
    body = request.body
    last_scan = body.rfind(b"\xff\xda")
    if last_scan > 0 and rng.random() < 0.2:
        repeated = body[last_scan:-2] * rng.choice((2, 50, 99, 101, 5000))
        return replace(request, body=(body[:last_scan] + repeated)[: MAX_REQUEST_BYTES - 2] + b"\xff\xd9")
    frame = max(body.find(b"\xff\xc0"), body.find(b"\xff\xc2"))
    if frame < 0 or len(body) < frame + 9 or rng.random() < 0.4:
        marker = rng.choice((0xE1, 0xE2, 0xEE, 0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE))
        content = rng.choice((b"Exif\0\0", b"MPF\0", b"Adobe\0", b"")) + rng.randbytes(rng.choice((0, 4, 60)))
        segment = bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content
        floods = rng.choice((1, 1, 1, 1, 500, 5000))
        return replace(request, body=(body[:2] + segment * floods + body[2:])[:MAX_REQUEST_BYTES])
    size = struct.pack(">HH", rng.choice((0, 1, 32, 4096, 65_535)), rng.choice((0, 1, 33, 4097, 65_535)))
    return replace(request, body=body[: frame + 5] + size + body[frame + 9 :])


# .npy


def _change_array(request: Request, rng: Rng) -> Request:
    """Write another array, or a header that says another thing than follows it."""
    if rng.random() < 0.4:
        return replace(request, body=array_file(rng.choice(_ARRAYS)))
    description = rng.choice(("|u1", "<f4", ">f4", "<f8", "<f2", "<i8", "|b1", "|O", "<U9", "|S3072", "<c8", "|V9",
                              "<M8[s]", "", "f" * 500))  # fmt: skip
    shape = rng.choice(("(32, 32, 3)", "(3, 32, 32, 3)", "(0, 32, 32, 3)", "(-1,)", "()", "(2**40,)", "(1e9,)", "[32]",
                        "(99999999999999999999, 32, 32, 3)", "(32, 32, 3, 1, 1)", "None", "(True, 32, 3)"))  # fmt: skip
    order = rng.choice(("False", "False", "True", "0", "None", "__import__('os')"))
    text = f"{{'descr': {description!r}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if rng.random() < 0.1:
        text = rng.choice(("", "{", "(" * 500, "{}", "'" * 100, "\0" * 64, "{'descr': [('a', 'O')]}", text * 300))
    header = text.encode().ljust(118) + b"\n"
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\xff\xff"))
    length = struct.pack("<H" if version == b"\1\0" else "<I", rng.choice((len(header), len(header), 0, 65_535)))
    return replace(request, body=b"\x93NUMPY" + version + length + header + request.body[128:])


_ARRAYS: tuple[NDArray[Any], ...] = (
    np.zeros((32, 32, 3), np.float16), np.zeros((32, 32, 3), np.int64), np.zeros((32, 32, 3), bool),
    np.zeros((32, 32, 3), np.complex64), np.full((32, 32, 3), np.nan), np.full((1, 32, 32, 3), np.inf, np.float32),
    np.full((32, 32, 3), -1.0), np.full((32, 32, 3), 0.5, ">f4"), np.full((32, 32, 3), 256, np.float32),
    np.zeros((3, 32, 32), np.uint8), np.zeros((0, 32, 32, 3), np.uint8), np.zeros((257, 32, 32, 3), np.uint8),
    np.asfortranarray(np.zeros((32, 32, 3), np.uint8)), np.zeros(3072, np.uint8), np.array(7, np.uint8),
    np.array([None, {}], object), np.zeros(4, [("a", "u1"), ("b", "f4")]), np.array(["ship"]),
)  # fmt: skip


# Multipart


def _change_multipart(request: Request, rng: Rng) -> Request:
    """Write another form, of parts that are named, typed and filled otherwise."""
    content = request.body.partition(b"\r\n\r\n")[2].partition(b"\r\n--fuzz-boundary")[0]
    # Empty ones in few forms only: TorchServe reads none of the fields then, and the handler sees nothing.
    empty = ("",) if rng.random() < 0.1 else ()
    names = ("cat", "cat", "body", "model_name", "describe", "explain", "content-type", "x-top-k", "top_k", "max_value",
             "image", "\u00e9", "a" * 500, 'q"; x="', "../x", *empty)  # fmt: skip
    types = ("image/png", "image/jpeg", "application/json", "application/octet-stream", "text/plain", None, "x", *empty)
    contents = (content, content, content, b"", b"3", b'{"image": []}', b"[1, 2]", b"\xff" * 3072,
                content[: len(content) // 2], rng.randbytes(3072))  # fmt: skip
    files = (None, "a.png", *empty, "\u202e", "../../x", "a" * 300)
    count = rng.choice((0, 1, 1, 2, 3, 5, 40, 257 if rng.random() < 0.1 else 2))
    parts = [
        (rng.choice((*names, f"n{n}")), rng.choice(files), rng.choice(types), rng.choice(contents))
        for n in range(count)
    ]
    boundary = rng.choice(("fuzz-boundary",) * 6 + ("-", "b" * 70, "b" * 200))
    return replace(multipart(parts, boundary), headers=request.headers)
