"""Image files in base64 inside JSON, without a server."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from decoding import BadInput, DecodedRequest, decode_request, only_part
from embedded_images import decode_base64
from pictures import decode_picture
from tests.handler.samples import FLAT, IMAGE, JPEG, JSON, NESTED, PNG, png_of

B64 = base64.b64encode(PNG).decode()
URLSAFE = base64.urlsafe_b64encode(PNG).decode().rstrip("=")
OTHER = IMAGE[::-1].copy()
OTHER_B64 = base64.b64encode(png_of(OTHER)).decode()


def decode(body: Any, **options: str) -> DecodedRequest:
    return decode_request(json.loads(json.dumps(body)), JSON, options)


@pytest.mark.parametrize(
    ("body", "many"),
    [
        pytest.param({"instances": [{"data": B64}]}, True, id="KServe's instances"),
        pytest.param({"instances": [{"b64": B64}]}, True, id="TensorFlow Serving's instances"),
        pytest.param({"instances": [{"image_bytes": {"b64": B64}}]}, True, id="with the name of an input"),
        pytest.param({"signature_name": "serving_default", "instances": [{"b64": B64}]}, True, id="with a signature"),
        pytest.param({"instances": [B64]}, True, id="bare text in instances"),
        pytest.param({"images": [B64]}, True, id="images"),
        pytest.param([B64], True, id="bare list"),
        pytest.param([{"b64": B64}], True, id="bare list of objects"),
        pytest.param({"image": B64}, False, id="image"),
        pytest.param({"image": {"b64": B64}}, False, id="image, an object"),
        pytest.param({"b64": B64}, False, id="b64"),
        pytest.param({"data": B64}, False, id="data"),
        pytest.param({"image_bytes": {"b64": B64}}, False, id="image_bytes"),
        pytest.param({"image": f"data:image/png;base64,{B64}"}, False, id="data URI"),
        pytest.param({"image": f"DATA:;BASE64,{B64}"}, False, id="data URI without a type"),
        pytest.param({"image": URLSAFE}, False, id="URL-safe without padding"),
        pytest.param({"image": base64.encodebytes(PNG).decode()}, False, id="lines of 76"),
        pytest.param({"instances": [{"image": FLAT}]}, True, id="numbers in an object"),
        pytest.param({"image": {"pixels": NESTED}}, False, id="nested numbers in an object"),
        pytest.param({"image": B64, "images": None, "parameters": {}}, False, id="keys that ask for nothing"),
    ],
)
def test_image_files_in_json_are_decoded(body, many):
    decoded = decode(body)
    assert (decoded.images.tolist(), decoded.many) == ([NESTED], many)


def test_jpeg_and_png_and_numbers_may_stand_in_one_list_in_any_order():
    decoded = decode({"instances": [FLAT, {"b64": OTHER_B64}, NESTED, base64.b64encode(JPEG).decode()]})
    assert np.array_equal(decoded.images[:3], np.stack([IMAGE, OTHER, IMAGE]))
    assert decoded.images.dtype == np.uint8
    assert np.array_equal(decoded.images[3], decode_picture(JPEG))


def test_options_stand_beside_an_image_file():
    assert decode({"b64": B64, "top_k": 3}).top_k == 3
    assert decode({"data": B64}, top_k="2").top_k == 2


def test_the_most_image_files_are_taken_and_one_more_is_not():
    assert len(decode({"instances": [{"b64": B64}] * 256}).images) == 256
    with pytest.raises(BadInput) as caught:
        decode({"instances": [{"b64": B64}] * 257})
    assert caught.value.code == "too_many_images"


def big_png(side: int) -> str:
    return base64.b64encode(png_of(np.zeros((side, side, 3), dtype=np.uint8))).decode()


SCALED = (IMAGE / 255).ravel().tolist()
RAW_PIXELS = base64.b64encode(IMAGE.tobytes()).decode()


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        pytest.param({"image": "cat.png"}, "malformed_base64", ("image is text", "cat.png"), id="a file's name"),
        pytest.param({"image": "c3 ä"}, "malformed_base64", ("no base64",), id="not ASCII"),
        pytest.param({"image": "A"}, "malformed_base64", ("no base64",), id="one digit"),
        pytest.param({"instances": [FLAT, "AA=A"]}, "malformed_base64", ("instances[1]",), id="padding inside"),
        pytest.param({"image": ""}, "unsupported_picture", ("0 bytes",), id="empty"),
        pytest.param({"image": "aGVsbG8="}, "unsupported_picture", ("hello", "PNG or JPEG"), id="text"),
        pytest.param({"image": RAW_PIXELS}, "unsupported_picture", ("3,072 bytes", "octet-stream"), id="raw pixels"),
        pytest.param({"images": [B64[:4000]]}, "unreadable_picture", ("images[0]", "truncated"), id="cut"),
        pytest.param({"instances": [{"b64": B64, "x": 1}]}, "wrong_nesting", ("'b64', 'x'",), id="two keys"),
        pytest.param({"instances": [{}]}, "wrong_nesting", ("none",), id="no key"),
        pytest.param(
            {"image": {"a": {"b": {"c": {"d": B64}}}}}, "not_a_list", ("an object with 1 keys",), id="four objects"
        ),
        pytest.param({"image": B64, "max_value": 1}, "wrong_max_value", ("image", "0–255"), id="scaled image file"),
        pytest.param({"images": [SCALED, B64]}, "mixed_scales", ("images[1]", "0–1"), id="beside scaled numbers"),
        pytest.param({"image": B64, "b64": B64}, "two_image_keys", ("image and b64",), id="two image files"),
        pytest.param({"images": [FLAT, 7, B64]}, "not_a_list", ("images[1]", "7"), id="a number among files"),
        pytest.param(
            {"images": [big_png(3000), big_png(3000)]}, "picture_too_large", ("images[1]", "together"), id="pixels"
        ),
    ],
)
def test_what_is_no_image_file_is_rejected(body, code, words):
    with pytest.raises(BadInput) as caught:
        decode(body)
    assert caught.value.code == code
    assert [word for word in words if word not in caught.value.message] == []


def test_black_image_files_beside_scaled_numbers_are_not_scaled_with_them():
    black = base64.b64encode(png_of(np.ones((32, 32, 3), dtype=np.uint8))).decode()
    with pytest.raises(BadInput) as caught:
        decode({"images": [black, SCALED]})
    assert caught.value.code == "mixed_scales"


@pytest.mark.parametrize("data", [b"\xfb\xef\xbe" * 3, b"\xff\xfe", b"?>?"])
def test_both_alphabets_mean_the_same(data):
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        assert decode_base64(text.decode(), "x") == data


def test_a_sole_part_of_any_name_is_the_image():
    for name in ("data", "body", "x", ""):
        assert only_part({name: PNG, "top_k": b"3"}) == PNG
    assert only_part({"top_k": b"3"}) == b""
    with pytest.raises(BadInput, match="2 inputs") as caught:
        only_part({"first": PNG, "second": PNG})
    assert caught.value.code == "wrong_inputs"
