"""Bodies that their headers contradict or change. id: (body, headers, code, words that the message must hold)."""

import gzip
import zlib

from tests.handler.samples import IMAGE, JSON, PNG, RAW

_ZIPPED = gzip.compress(IMAGE.tobytes())
FITTING = _ZIPPED.ljust(6144, b"\0")  # the length of two raw images
BOMB = gzip.compress(bytes(6_553_501))

BAD_HEADERS: dict[str, tuple[bytes, dict[str, str], str, tuple[str, ...]]] = {
    "gzip of a fitting length": (FITTING, {"Content-Encoding": "gzip"}, "malformed_encoding", ("gzip",)),
    "cut gzip": (_ZIPPED[:-9], {"Content-Encoding": "gzip"}, "malformed_encoding", ("before its end mark",)),
    "changed gzip": (_ZIPPED[:-8] + bytes(8), {"Content-Encoding": "GZip"}, "malformed_encoding", ("gzip",)),
    "gzip of nothing": (b"", {"Content-Encoding": "gzip"}, "malformed_encoding", ("gzip",)),
    "no gzip": (IMAGE.tobytes(), {"Content-Encoding": "x-gzip"}, "malformed_encoding", ("x-gzip",)),
    "no deflate": (PNG, {"Content-Encoding": "deflate"}, "malformed_encoding", ("deflate",)),
    "more behind deflate": (
        zlib.compress(IMAGE.tobytes()) + b"x", {"Content-Encoding": "deflate"}, "malformed_encoding", ("follows",)
    ),
    "brotli": (IMAGE.tobytes(), {"Content-Encoding": "br"}, "unsupported_encoding", ("Content-Encoding", "'br'")),
    "zstd in gzip": (_ZIPPED, {"Content-Encoding": "zstd, gzip"}, "unsupported_encoding", ("'zstd, gzip'",)),
    "three codings": (_ZIPPED, {"Content-Encoding": "gzip, gzip, gzip"}, "unsupported_encoding", ("at most 2",)),
    "aws-chunked": (IMAGE.tobytes(), {"Content-Encoding": "aws-chunked"}, "unsupported_encoding", ("aws-chunked",)),
    "bomb": (BOMB, {"Content-Encoding": "gzip"}, "body_too_large", ("6,553,500",)),
    "bomb in a bomb": (
        gzip.compress(gzip.compress(bytes(50_000_000), 1)), {"Content-Encoding": "gzip, gzip"}, "body_too_large",
        ("6,553,500",),
    ),
    "a thousand gzip members": (gzip.compress(b"") * 1000, {"Content-Encoding": "gzip"}, "body_too_large", ("256",)),
    "part": (
        IMAGE.tobytes(), {"Content-Range": "bytes 0-3071/6144"}, "partial_body", ("Content-Range", "0-3071/6144")
    ),
    "base64 body": (
        IMAGE.tobytes(), {"Content-Transfer-Encoding": "base64"}, "unsupported_encoding",
        ("Content-Transfer-Encoding", "base64"),
    ),
    "JSON in Latin-1": (
        b'{"image": []}', {"Content-Type": f"{JSON}; charset=ISO-8859-1"}, "unsupported_charset",
        ("Content-Type", "ISO-8859-1", "UTF-8"),
    ),
    "JSON in a charset in quotes": (
        b'{"image": []}', {"content-type": f'{JSON};CHARSET="utf-7"'}, "unsupported_charset", ("utf-7",)
    ),
    "two types": (
        IMAGE.tobytes(), {"Content-Type": RAW, "content-type": "image/png"}, "conflicting_headers",
        ("Content-Type", "image/png", RAW),
    ),
    "two codings in two headers": (
        _ZIPPED, {"Content-Encoding": "gzip", "CONTENT-ENCODING": "identity"}, "conflicting_headers", ("identity",)
    ),
}  # fmt: skip
