"""Request bodies to images, and every rejection, without a server."""

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bad_input import STATUS_OF_CODE
from benchmarks.fuzz_bodies import PYTHON_INSIDES
from decoding import BadInput, decode_request
from tests.handler.bad_forms import BAD_FORMS
from tests.handler.bad_headers import BAD_HEADERS
from tests.handler.bad_tensors import BAD_BINARY, BAD_NPY, BAD_OPEN_INFERENCE
from tests.handler.heavy_files import jpeg_of_scans, jpeg_with, png_chunk, png_with
from tests.handler.known_files import OTHERS, PICTURES, WHOLE, WIDE_NUMBERS, padded
from tests.handler.samples import FLAT, IMAGE, JPEG, JSON, NESTED, PNG, RAW, encode, npy_of, tensor_of

SCALED = (IMAGE.astype(np.float32) / 255).ravel().tolist()  # as ToTensor leaves it
FLAT_BRACE = b"{" * 3072  # a grey image that begins as JSON does


def changed(index: int, value: Any) -> list[Any]:
    return [*FLAT[:index], value, *FLAT[index + 1 :]]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


APNG = encode(
    Image.new("RGB", (32, 32), "red"), save_all=True, append_images=[Image.new("RGB", (32, 32), "blue")], duration=9
)

GOOD = [
    pytest.param({"image": FLAT}, JSON, False, id="object, flat"),
    pytest.param({"image": NESTED}, JSON, False, id="object, nested"),
    pytest.param(FLAT, JSON, False, id="bare list, flat"),
    pytest.param(NESTED, JSON, False, id="bare list, nested"),
    pytest.param([NESTED], JSON, True, id="bare list of one nested image"),
    pytest.param([FLAT], JSON, True, id="bare list of one flat image"),
    pytest.param({"images": [FLAT]}, JSON, True, id="images, one flat"),
    pytest.param({"images": [NESTED]}, JSON, True, id="images, one nested"),
    pytest.param({"instances": [NESTED]}, JSON, True, id="instances, as KServe V1 names them"),
    pytest.param({"image": [float(number) for number in FLAT]}, JSON, False, id="whole numbers written as floats"),
    pytest.param({"image": changed(5, float(FLAT[5]))}, JSON, False, id="a float among whole numbers"),
    pytest.param({"image": FLAT, "max_value": 255}, JSON, False, id="max_value 255 told"),
    pytest.param({"image": FLAT}, "Application/JSON; charset=utf-8", False, id="content type with case and parameter"),
    pytest.param({"image": FLAT}, None, False, id="parsed JSON without content type"),
    pytest.param(json.dumps(FLAT).encode(), JSON, False, id="JSON that the server has not parsed"),
    pytest.param(bytearray(json.dumps({"image": FLAT}).encode()), None, False, id="JSON told by its brace"),
    pytest.param(b" \n" + json.dumps(NESTED).encode(), "", False, id="JSON told by its bracket after blanks"),
    pytest.param(IMAGE.tobytes(), RAW, False, id="raw bytes"),
    pytest.param(bytearray(IMAGE.tobytes()), None, False, id="raw bytes told by their length"),
    pytest.param(PNG, "image/png", False, id="PNG"),
    pytest.param(PNG, None, False, id="PNG told by its signature"),
    pytest.param(PNG, "image/jpeg", False, id="PNG said to be JPEG"),
    pytest.param(npy_of(IMAGE), "application/x-npy", False, id="npy"),
    pytest.param(npy_of(IMAGE[None]), None, True, id="npy of one image in a batch, told by its signature"),
    pytest.param(npy_of(np.asfortranarray(IMAGE)), None, False, id="npy in Fortran order"),
    pytest.param(npy_of(np.asfortranarray(IMAGE[None])), None, True, id="npy of a batch in Fortran order"),
    pytest.param(npy_of(IMAGE.astype(">f4")), None, False, id="npy of whole big-endian floats"),
    pytest.param(npy_of(np.asfortranarray(IMAGE.astype("<f2"))), None, False, id="npy of half floats in Fortran order"),
    pytest.param(npy_of(IMAGE.astype(np.longdouble)), None, False, id="npy of long doubles"),
    pytest.param(npy_of(IMAGE, version=(2, 0)), None, False, id="npy of version 2"),
    pytest.param(npy_of(IMAGE, version=(3, 0)), None, False, id="npy of version 3"),
    pytest.param({"inputs": [tensor_of(IMAGE[None])]}, JSON, True, id="Open Inference, flat"),
    pytest.param({"inputs": [tensor_of(IMAGE[None], data=[NESTED])]}, None, True, id="Open Inference, nested"),
    pytest.param({"inputs": [tensor_of(IMAGE[None], datatype="FP32")]}, JSON, True, id="Open Inference, whole FP32"),
]


@pytest.mark.parametrize(("body", "content_type", "many"), GOOD)
def test_every_accepted_body_gives_the_same_pixels(body, content_type, many):
    decoded = decode_request(body, content_type, {})
    assert decoded.images.dtype == np.uint8
    assert decoded.images.shape == (1, 32, 32, 3)
    assert np.array_equal(decoded.images[0], IMAGE)
    assert (decoded.many, decoded.top_k, decoded.max_value) == (many, None, None)


@pytest.mark.parametrize("content_type", [RAW, None])
@pytest.mark.parametrize("count", [2, 256])
def test_several_raw_images_are_many_in_the_order_sent(count, content_type):
    images = np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    decoded = decode_request(images.tobytes(), content_type, {})
    assert decoded.many
    assert np.array_equal(decoded.images, images)


def test_flat_and_nested_images_may_stand_in_one_list():
    other = IMAGE[::-1]
    decoded = decode_request({"images": [FLAT, other.tolist()]}, JSON, {})
    assert np.array_equal(decoded.images, np.stack([IMAGE, other]))


def test_the_most_images_that_a_request_may_hold_are_taken():
    assert len(decode_request({"images": [FLAT] * 256}, JSON, {}).images) == 256


def test_a_raw_image_that_begins_like_json_is_still_an_image():
    assert decode_request(FLAT_BRACE, None, {}).images.tolist() == [[[[123] * 3] * 32] * 32]


# Scale ----------------------------------------------------------------------------------------------------------------


def test_fractions_in_0_to_1_are_taken_as_scaled_and_reported():
    decoded = decode_request({"image": SCALED}, JSON, {})
    assert decoded.images.dtype == np.float32
    assert decoded.max_value == 1
    assert np.array_equal(decoded.images[0], IMAGE.astype(np.float32))


def test_scale_is_decided_over_the_whole_request():
    # JavaScript writes 0.0 as 0: a black image beside scaled ones has no fractions of its own.
    decoded = decode_request({"images": [[0] * 3071 + [1], SCALED]}, JSON, {})
    assert decoded.max_value == 1
    assert decoded.images[0].max() == 255


@pytest.mark.parametrize("one", [1, 1.0], ids=["int", "float"])
def test_zeros_and_ones_without_fractions_are_taken_as_0_to_255(one):
    decoded = decode_request([0, one] * 1536, JSON, {})
    assert (decoded.max_value, decoded.images.max()) == (None, 1)


def test_zeros_and_ones_are_scaled_where_told():
    decoded = decode_request({"image": [0, 1] * 1536, "max_value": 1}, JSON, {})
    assert (decoded.max_value, decoded.images.max()) == (1, 255)


def test_fractions_in_0_to_1_stay_as_they_are_where_told_255():
    decoded = decode_request({"image": SCALED, "max_value": 255}, JSON, {})
    assert decoded.max_value is None
    assert decoded.images.max() <= 1


def test_fractions_in_0_to_255_stay_float32():
    decoded = decode_request(changed(0, 127.5), JSON, {})
    assert decoded.images.dtype == np.float32
    assert (decoded.images[0, 0, 0, 0], decoded.max_value) == (127.5, None)


def test_scaled_arrays_follow_the_rules_of_json():
    scaled = np.stack([IMAGE.astype(np.float32) / 255, np.zeros_like(IMAGE)])
    decoded = decode_request(npy_of(scaled), None, {})
    assert decoded.max_value == 1
    assert decoded.images.dtype == np.float32
    assert np.array_equal(decoded.images, np.stack([IMAGE, np.zeros_like(IMAGE)]))


def test_scaled_fp32_tensors_follow_the_rules_of_json():
    decoded = decode_request({"inputs": [tensor_of(IMAGE[None] / 255, datatype="FP32")]}, JSON, {})
    assert decoded.max_value == 1
    assert np.array_equal(decoded.images[0], IMAGE)


def test_a_uint8_array_in_c_order_is_a_view_of_the_body():
    body = bytearray(npy_of(np.stack([IMAGE, IMAGE])))
    images = decode_request(body, "application/x-npy", {}).images
    body[-1] ^= 255
    assert images[1, 31, 31, 2] == body[-1]


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "query"),
    [({"top_k": 3}, {}), ({}, {"top_k": "3"}), ({"top_k": 3}, {"top_k": "3"})],
    ids=["in the body", "in the query", "the same in both"],
)
def test_top_k_comes_from_body_or_query(keys, query):
    assert decode_request({"image": FLAT, **keys}, JSON, query).top_k == 3


@pytest.mark.parametrize(
    ("body", "content_type"), [(FLAT, JSON), (IMAGE.tobytes(), RAW), (PNG, "image/png"), (npy_of(IMAGE), None)]
)
def test_every_kind_of_body_takes_options_from_the_query(body, content_type):
    assert decode_request(body, content_type, {"top_k": "10", "max_value": "255"}).top_k == 10


# Images -------------------------------------------------------------------------------------------------------------


def picture_of(body: bytes) -> np.ndarray:
    images = decode_request(body, None, {}).images
    assert images.shape == (1, 32, 32, 3)
    assert images.dtype == np.uint8
    image: np.ndarray = images[0]
    return image


def test_jpeg_is_decoded_to_nearly_the_same_pixels():
    smooth = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
    difference = picture_of(encode(smooth, "JPEG", quality=95)).astype(int) - np.asarray(smooth)
    assert np.abs(difference).max() < 12


def test_shrinking_averages_instead_of_dropping_pixels():
    stripes = np.zeros((320, 320, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    shrunk = picture_of(encode(Image.fromarray(stripes)))
    assert 120 <= shrunk.min() <= shrunk.max() <= 135


def test_a_large_jpeg_shrinks_to_what_a_large_png_shrinks_to():
    large = Image.radial_gradient("L").resize((2048, 1024)).convert("RGB")
    difference = picture_of(encode(large, "JPEG", quality=95)).astype(int) - picture_of(encode(large))
    assert np.abs(difference).max() < 8


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_colour_modes_are_converted(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert (picture_of(encode(Image.new("RGB", (32, 32), "white").convert(mode), kind)) > 250).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode):
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0)).convert(mode)
    assert (picture_of(encode(clear, transparency=0) if mode == "P" else encode(clear)) == 255).all()


def test_16_bit_greyscale_is_scaled_and_not_clipped():
    deep = (np.arange(1024, dtype=np.uint16) * 64).reshape(32, 32)
    assert np.array_equal(picture_of(encode(Image.fromarray(deep)))[..., 0], deep >> 8)


def test_transparent_16_bit_grey_is_laid_over_white():
    deep = np.full((32, 32), 5000, dtype=np.uint16)
    deep[0, 0] = 9999
    pixels = picture_of(encode(Image.fromarray(deep), transparency=9999))
    assert (pixels[0, 0, 0], pixels[1, 1, 0]) == (255, 5000 >> 8)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    assert np.array_equal(picture_of(encode(Image.fromarray(IMAGE), exif=exif)), IMAGE[::-1, ::-1])


def test_a_broken_exif_block_does_not_spoil_the_picture():
    assert np.array_equal(picture_of(encode(Image.fromarray(IMAGE), exif=b"Exif\0\0broken")), IMAGE)


def test_further_frames_of_a_telephones_jpeg_are_passed_over():
    first, second = Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32))
    photograph = encode(first, "MPO", save_all=True, append_images=[second])
    assert (picture_of(photograph) > 250).all()


# Rejections -----------------------------------------------------------------------------------------------------------

# id: (body, content type, query, code, words that the message must hold)
BAD: dict[str, tuple[Any, str | None, dict[str, str], str, tuple[str, ...]]] = {
    "empty body": (bytearray(), None, {}, "empty_body", ("empty",)),
    "empty JSON": (bytearray(), JSON, {}, "empty_body", ("empty",)),
    "blank JSON": (b" \n", JSON, {}, "empty_body", ("empty",)),
    "empty raw": (b"", RAW, {}, "empty_body", ("empty",)),
    "empty image file": (b"", "image/png", {}, "empty_body", ("empty",)),
    "cut JSON": (bytearray(b'{"image": [1,'), JSON, {}, "malformed_json", ("line 1, column 14", "image")),
    "cut JSON, untyped": (b"[1, 2", None, {}, "malformed_json", ("character 5 of 5",)),
    "raw said to be JSON": (IMAGE.tobytes(), JSON, {}, "malformed_json", ("octet-stream",)),
    "latin-1 JSON": (b'{"\xe9": 1}', JSON, {}, "malformed_json", ("UTF-8", "byte 2")),
    "deep JSON": (b"[" * 100_000, JSON, {}, "malformed_json", ("deep",)),
    "5,000 digits": (b"[" + b"9" * 5000 + b"]", JSON, {}, "malformed_json", ("digits",)),
    "JSON string": ("cat", JSON, {}, "wrong_json", ("'cat'",)),
    "JSON null": (None, JSON, {}, "wrong_json", ("null",)),
    "JSON number": (b"7", JSON, {}, "wrong_json", ("7",)),
    "no image": ({}, JSON, {}, "missing_image", ("none",)),
    "misspelt key": ({"img": FLAT}, JSON, {}, "missing_image", ("'img'", '"image"')),
    "surrogate key": ({"\ud800": 1}, JSON, {}, "missing_image", (r"\ud800",)),
    "two image keys": ({"image": FLAT, "images": [FLAT]}, JSON, {}, "two_image_keys", ("image and images",)),
    "unknown key": ({"image": FLAT, "topk": 3}, JSON, {}, "unknown_key", ("'topk'", "top_k")),
    "unknown query": (FLAT, JSON, {"topk": "3"}, "unknown_option", ("'topk'", "top_k")),
    "top_k 0": ({"image": FLAT, "top_k": 0}, JSON, {}, "wrong_top_k", ("0", "1 to 10")),
    "top_k 11": (PNG, None, {"top_k": "11"}, "wrong_top_k", ("11",)),
    "top_k true": ({"image": FLAT, "top_k": True}, JSON, {}, "wrong_top_k", ("true",)),
    "top_k string": ({"image": FLAT, "top_k": "3"}, JSON, {}, "wrong_top_k", ("'3'",)),
    "top_k fraction": ({"image": FLAT, "top_k": 2.5}, JSON, {}, "wrong_top_k", ("2.5",)),
    "top_k word": (FLAT, JSON, {"top_k": "three"}, "wrong_top_k", ("'three'",)),
    "max_value 128": ({"image": FLAT, "max_value": 128}, JSON, {}, "wrong_max_value", ("128", "255")),
    "max_value true": ({"image": FLAT, "max_value": True}, JSON, {}, "wrong_max_value", ("true",)),
    "max_value null": ({"image": FLAT, "max_value": None}, JSON, {}, "wrong_max_value", ("null",)),
    "max_value list": ({"image": FLAT, "max_value": [1]}, JSON, {}, "wrong_max_value", ("a list of 1",)),
    "scaled raw": (IMAGE.tobytes(), RAW, {"max_value": "1"}, "wrong_max_value", ("raw bytes",)),
    "scaled image": (PNG, None, {"max_value": "1"}, "wrong_max_value", ("image",)),
    "two top_k": ({"image": FLAT, "top_k": 3}, JSON, {"top_k": "4"}, "conflicting_option", ("3", "4")),
    "empty images": ({"images": []}, JSON, {}, "no_images", ("images", "1 to 256")),
    "string image": ({"image": "hello!"}, JSON, {}, "malformed_base64", ("'hello!'",)),
    "null image": ({"image": None}, JSON, {}, "not_a_list", ("null",)),
    "object image": ({"instances": [{"b64": ""}]}, JSON, {}, "unsupported_picture", ("instances",)),
    "object among images": ({"images": [FLAT, {}]}, JSON, {}, "wrong_nesting", ("images[1]", "object")),
    "number images": ({"images": 3}, JSON, {}, "not_a_list", ("images is 3",)),
    "empty image": ({"image": []}, JSON, {}, "wrong_length", ("0 numbers", "3,072")),
    "empty list": ([], JSON, {}, "wrong_length", ("0 numbers",)),
    "one short": (FLAT[:-1], JSON, {}, "wrong_length", ("3,071",)),
    "one short of many": ({"images": [FLAT, FLAT[:-1]]}, JSON, {}, "wrong_length", ("images[1]", "3,071")),
    "two as one": ({"image": FLAT * 2}, JSON, {}, "wrong_length", ("2 images", '"images"')),
    "greyscale": (FLAT[:1024], JSON, {}, "wrong_length", ("greyscale",)),
    "raw short": (IMAGE.tobytes()[:-1], RAW, {}, "wrong_length", ("3,071 bytes",)),
    "32×96": ({"image": IMAGE.reshape(32, 96).tolist()}, JSON, {}, "wrong_nesting", ("32×96", "32×32×3")),
    "four channels": (np.zeros((32, 32, 4), int).tolist(), JSON, {}, "wrong_nesting", ("32×32×4",)),
    "list as image": ({"image": [NESTED]}, JSON, {}, "wrong_nesting", ("1×32×32×3", '"images"')),
    "image as images": ({"images": NESTED}, JSON, {}, "wrong_nesting", ("32×32×3", '"image"')),
    "numbers as images": ({"images": FLAT}, JSON, {}, "wrong_nesting", ("3,072", '"image"')),
    "deep list": (json.loads("[" * 900 + "]" * 900), JSON, {}, "wrong_nesting", ("1×1×1",)),
    "short row": ([*NESTED[:31], NESTED[31][:31]], JSON, {}, "ragged_image", ("rows", "32")),
    "short pixel": ([*NESTED[:31], [*NESTED[31][:31], [1, 2]]], JSON, {}, "ragged_image", ("pixels", "3")),
    "number as row": ([*NESTED[:31], 5], JSON, {}, "ragged_image", ("rows",)),
    "list as number": (changed(9, [1]), JSON, {}, "ragged_image", ("a list of 1", "number 9")),
    "channels first": (
        IMAGE.transpose(2, 0, 1).tolist(),
        JSON,
        {},
        "channels_first",
        ("3×32×32", "permute"),
    ),
    "string as number": (changed(1500, "7"), JSON, {}, "not_a_number", ("'7'", "number 1,500", "row 15", "quotation")),
    "object as number": (changed(9, {}), JSON, {}, "not_a_number", ("object",)),
    "boolean": (changed(1500, True), JSON, {}, "boolean", ("true", "number 1,500")),
    "boolean nested": ([[[True] * 3] * 32] * 32, JSON, {}, "boolean", ("true", "number 0")),
    "boolean among floats": ([0.5] * 3071 + [False], JSON, {}, "boolean", ("false", "row 31, column 31, blue")),
    "null": (changed(3, None), JSON, {}, "null", ("null", "row 0, column 1, red")),
    "NaN": (changed(3, float("nan")), JSON, {}, "nan", ("NaN", "number 3 ")),
    "infinity": (changed(3, float("inf")), JSON, {}, "infinity", ("infinity",)),
    "minus infinity": (changed(3, -float("inf")), JSON, {}, "infinity", ("infinity",)),
    "256": (changed(3, 256), JSON, {}, "number_too_large", ("256", "0–255")),
    "255.5": (changed(3, 255.5), JSON, {}, "number_too_large", ("255.5",)),
    "16-bit": ([number * 257 for number in FLAT], JSON, {}, "number_too_large", ("16-bit",)),
    "huge": (changed(3, 10**400), JSON, {}, "number_too_large", ("bits",)),
    "huge among floats": ([*SCALED[:-1], 10**400], JSON, {}, "number_too_large", ("bits",)),
    "beyond max_value": ({"image": FLAT, "max_value": 1}, JSON, {}, "number_too_large", ("255", "max_value is 1")),
    "negative": (changed(3, -1), JSON, {}, "negative_number", ("-1", "raw pixels")),
    "minus huge": (changed(3, -(10**400)), JSON, {}, "negative_number", ("raw pixels",)),
    "normalised": ([-0.3, 2.1] * 1536, JSON, {}, "negative_number", ("-0.3", "normalised", "raw pixels")),
    "mixed scales": ({"images": [FLAT, SCALED]}, JSON, {}, "mixed_scales", ("images[1]", "images[0]")),
    "257 images": ({"images": [FLAT] * 257}, JSON, {}, "too_many_images", ("257", "256")),
    "257 raw": (IMAGE.tobytes() * 257, RAW, {}, "too_many_images", ("257",)),
    "form": (None, "application/x-www-form-urlencoded", {}, "form_body", ("curl -d", "application/json")),
    "text": ("[1]", "text/plain; charset=utf-8", {}, "unsupported_type", ("text/plain", "application/json")),
    "GIF type": (b"GIF89a", "image/gif", {}, "unsupported_picture", ("image/gif", "image/png")),
    "GIF body": (encode(Image.new("L", (32, 32)), "GIF"), "image/png", {}, "unsupported_picture", ("GIF8",)),
    "JSON as image": (b"[1]", "image/png", {}, "unsupported_picture", ("[1]",)),
    "unknown bytes": (b"hello", None, {}, "unrecognised_body", ("hello", "5 bytes", "Content-Type")),
    "PNG as raw": (PNG, RAW, {}, "picture_as_raw", ("image/png",)),
    "JPEG as raw": (JPEG, RAW, {}, "picture_as_raw", ("image/jpeg",)),
    "JSON as raw": (b'{"image": [1, 2]}', RAW, {}, "json_as_raw", ("application/json",)),
    "TIFF as raw": (padded(PICTURES["TIFF"]), RAW, {}, "unsupported_picture", ("a TIFF file", "PNG")),
    "BMP, untyped": (padded(PICTURES["BMP"]), None, {}, "unsupported_picture", ("a BMP file",)),
    "WebP in a body of no fitting length": (PICTURES["WebP"], None, {}, "unsupported_picture", ("a WebP file",)),
    "ZIP as raw": (padded(OTHERS["ZIP"]), RAW, {}, "unsupported_file", ("a ZIP archive", "numpy.savez")),
    "pickle, untyped": (WHOLE["pickle of protocol 4"], None, {}, "unsupported_file", ("a pickle",)),
    "float32 as raw": (
        WIDE_NUMBERS["float32 in 0–1"].tobytes(),
        RAW,
        {},
        "numbers_as_raw",
        ("float32", "4 images", "npy"),
    ),
    "float64, untyped": (WIDE_NUMBERS["float64 in 0–1"].tobytes(), None, {}, "numbers_as_raw", ("float64", "8 images")),
    "int64 as raw": (WIDE_NUMBERS["int64, numpy's own"].tobytes(), RAW, {}, "numbers_as_raw", ("int64",)),
    "JSON as text": ('{"image": [1]}', "text/plain", {}, "unsupported_type", ("Content-Type: application/json.",)),
    "JSON of a million lists": (b"[" + b"[]," * 500_000 + b"0]", None, {}, "too_much_work", ("500,001 lists",)),
    "JSON of a million keys": (b"{" + b'"":1,' * 99_999 + b'"":1}', None, {}, "too_much_work", ("100,000 keys",)),
    "cut PNG": (PNG[:1000], "image/png", {}, "unreadable_picture", ("1,000 bytes", "truncated")),
    "cut JPEG": (JPEG[: len(JPEG) // 2], None, {}, "unreadable_picture", ("truncated",)),
    "PNG signature only": (PNG[:8], None, {}, "unreadable_picture", ("8 bytes",)),
    "bomb by header": (png_header(4097, 4096), None, {}, "picture_too_large", ("4,097×4,096", "16,777,216")),
    "bomb that Pillow warns of": (png_header(10_000, 10_000), None, {}, "picture_too_large", ("16,777,216",)),
    "bomb that Pillow rejects": (png_header(50_000, 50_000), None, {}, "picture_too_large", ("16,777,216",)),
    "bomb of one row": (png_header(70_000, 2), None, {}, "picture_too_large", ("70,000×2", "65,535")),
    "thousands of scans": (jpeg_of_scans((32, 32), 5000), None, {}, "too_much_work", ("100 scans", "save it again")),
    "many scans of many pixels": (
        jpeg_of_scans((4096, 4096), 60),
        "image/jpeg",
        {},
        "too_much_work",
        ("4,096×4,096", "its many scans"),
    ),
    "many comments": (jpeg_with(b"\xff\xfe\0\2" * 9999, JPEG), None, {}, "too_much_work", ("1,024 segments",)),
    "many chunks": (png_with(png_chunk(b"tEXt") * 20_000, PNG), None, {}, "too_much_work", ("16,384 chunks",)),
    "lossless JPEG": (
        JPEG.replace(b"\xff\xc0", b"\xff\xc3"),
        None,
        {},
        "unsupported_picture",
        ("losslessly", "progressive"),
    ),
    "animation": (APNG, "image/png", {}, "animated_picture", ("2 frames",)),
    **BAD_NPY,
    **BAD_OPEN_INFERENCE,
}


@pytest.mark.parametrize(("body", "content_type", "query", "code", "words"), BAD.values(), ids=BAD)
def test_rejection_says_what_came(body, content_type, query, code, words):
    with pytest.raises(BadInput) as caught:
        decode_request(body, content_type, query)
    rejection = caught.value
    assert (rejection.code, rejection.status) == (code, STATUS_OF_CODE[code])
    assert [word for word in words if word not in rejection.message] == []
    rejection.message.encode()  # no lone surrogates
    assert PYTHON_INSIDES.search(rejection.message) is None
    assert len(rejection.message) < 500


def test_every_code_is_given_by_some_body():
    given_elsewhere = {row[2] for table in (BAD_FORMS, BAD_HEADERS, BAD_BINARY) for row in table.values()}
    assert {row[3] for row in BAD.values()} | given_elsewhere == set(STATUS_OF_CODE)


def test_every_status_is_one_of_the_contract():
    assert set(STATUS_OF_CODE.values()) == {400, 413, 415, 422}


# Properties -----------------------------------------------------------------------------------------------------------

CONTENT_TYPES = st.sampled_from([None, "", JSON, RAW, "image/png", "image/jpeg", "multipart/form-data"]) | st.text()
QUERIES = st.dictionaries(st.sampled_from(["top_k", "max_value"]) | st.text(), st.text(), max_size=2)
NUMBERS = st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
VALUES = st.recursive(NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
NEARLY_IMAGES = st.builds(changed, st.integers(0, 3071), VALUES)
NEARLY_BODIES = st.dictionaries(
    st.sampled_from(["image", "images", "instances", "top_k", "max_value"]),
    VALUES | NEARLY_IMAGES | st.lists(NEARLY_IMAGES, max_size=2),
    max_size=3,
)
NEARLY_TENSORS = st.dictionaries(
    st.sampled_from(["id", "parameters", "inputs", "outputs", "image"]),
    VALUES
    | st.lists(
        st.fixed_dictionaries(
            {
                "name": VALUES | st.just("label"),
                "shape": VALUES | st.just([1, 32, 32, 3]),
                "datatype": VALUES | st.sampled_from(["UINT8", "FP32"]),
                "data": VALUES | NEARLY_IMAGES,
            }
        ),
        max_size=2,
    ),
)
NEARLY_PICTURES = st.builds(
    lambda whole, at, new: whole[:at] + new + whole[at + len(new) :],
    st.sampled_from([PNG, JPEG, APNG, npy_of(IMAGE), npy_of(IMAGE[None] / 255)]),
    st.integers(0, 3000),
    st.binary(max_size=40),
)


def decodes_or_rejects(body: object, content_type: str | None, query: dict[str, str]) -> None:
    try:
        decoded = decode_request(body, content_type, query)
    except BadInput as rejection:
        rejection.message.encode()
        assert "object at 0x" not in rejection.message
    else:
        assert decoded.images.shape[1:] == (32, 32, 3)
        assert decoded.images.dtype.isnative
        assert 0 <= decoded.images.min() <= decoded.images.max() <= 255


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary() | NEARLY_PICTURES, CONTENT_TYPES, QUERIES)
def test_no_bytes_raise_anything_but_bad_input(body, content_type, query):
    decodes_or_rejects(body, content_type, query)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES | NEARLY_BODIES | NEARLY_IMAGES | NEARLY_TENSORS, QUERIES)
def test_no_json_raises_anything_but_bad_input(value, query):
    decodes_or_rejects(value, JSON, query)
