"""Forms that are rejected. id: (fields, headers beside the content type, code, words that the message must hold)."""

from typing import Any

import numpy as np
from PIL import Image

from tests.handler.heavy_files import jpeg_of_scans
from tests.handler.samples import IMAGE, PNG, encode, npy_of

LARGEST = encode(Image.new("L", (4096, 4096)))  # 50 KB, and as many pixels as a request may have
MANY_SCANS = jpeg_of_scans((2048, 2048), 60)

BAD_FORMS: dict[str, tuple[dict[str, Any], dict[str, str], str, tuple[str, ...]]] = {
    "no fields": ({}, {}, "malformed_form", ("no field", "boundary")),
    "no boundary": ({"body": PNG}, {"content-type": "multipart/form-data"}, "malformed_form", ("boundary is missing",)),
    "options only": ({"top_k": b"3"}, {}, "no_images", ("1 to 256",)),
    "257 pictures": ({f"p{index}": PNG for index in range(257)}, {}, "too_many_images", ("257",)),
    "empty field": ({"a": PNG, "b": b""}, {}, "empty_field", ("'b'", "empty")),
    "text": ({"a": PNG, "b": bytearray(b"hello")}, {}, "wrong_field", ("'b'", "hello", "top_k")),
    "parsed text": ({"t": "hello"}, {}, "wrong_field", ("'t'", "text", "'hello'")),
    "parsed JSON": ({"j": {"image": [1]}}, {}, "wrong_field", ("'j'", "JSON", "application/json")),
    "parsed number": ({"j": 7}, {}, "wrong_field", ("'j'", "JSON (7)")),
    "GIF": ({"g": encode(Image.new("L", (32, 32)), "GIF")}, {}, "wrong_field", ("'g'", "a GIF file")),
    "cut image": ({"a": PNG[:999]}, {}, "unreadable_picture", ("'a'", "truncated")),
    "cut npy": ({"a": npy_of(IMAGE)[:999]}, {}, "shape_mismatch", ("'a'",)),
    "npy of two": ({"a": npy_of(np.stack([IMAGE] * 2))}, {}, "wrong_shape", ("'a'", "2 images", "x-npy")),
    "pictures that fill memory together": ({"a": LARGEST, "b": PNG}, {}, "picture_too_large", ("'b'", "together")),
    "pictures whose scans take long together": (
        {"a": MANY_SCANS, "b": MANY_SCANS}, {}, "too_much_work", ("'b'", "scans", "together")
    ),
    "wrong top_k": ({"a": PNG, "top_k": b"many"}, {}, "wrong_top_k", ("'many'",)),
    "top_k an image": ({"a": PNG, "top_k": PNG}, {}, "wrong_top_k", ("PNG",)),
    "top_k parsed JSON": ({"a": PNG, "top_k": [3]}, {}, "wrong_top_k", ("a list of 1",)),
    "max_value 1 for an image": ({"a": PNG, "max_value": b"1"}, {}, "wrong_max_value", ("'a'", "0–255")),
    "max_value 1 for uint8": ({"a": npy_of(IMAGE), "max_value": b"1"}, {}, "wrong_max_value", ("'a'",)),
    "field and header disagree": (
        {"a": PNG, "top_k": b"1"}, {"x-top-k": "2"}, "conflicting_option", ("the field", "x-top-k")
    ),
    "fields of one name": (
        {"a": PNG}, {"content-length": str(len(PNG) * 2 + 400)}, "repeated_field", ("its 1 fields", "name of its own")
    ),
    "5,000 fields": ({f"f{index}": b"" for index in range(5000)}, {}, "too_many_images", ("5,000",)),
}  # fmt: skip
