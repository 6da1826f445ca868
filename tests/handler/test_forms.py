"""Forms as TorchServe hands them over, without a server."""

from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bad_input import STATUS_OF_CODE
from benchmarks.fuzz_bodies import PYTHON_INSIDES
from decoding import BadInput, DecodedRequest, decode_form, is_form
from tests.handler.bad_forms import BAD_FORMS
from tests.handler.samples import IMAGE, PNG, encode, npy_of, png_of

HEADERS = {"content-type": "multipart/form-data; boundary=x"}


def decode(fields: dict[str, Any], **headers: str) -> DecodedRequest:
    return decode_form(fields, HEADERS | {name.replace("_", "-"): value for name, value in headers.items()})


def test_fields_are_images_in_their_order_and_keep_their_names():
    other = IMAGE[::-1].copy()
    decoded = decode({"z": bytearray(PNG), "ä": npy_of(other), "a": png_of(other)})
    assert np.array_equal(decoded.images, np.stack([IMAGE, other, other]))
    assert decoded.fields is not None
    assert [field.name for field in decoded.fields] == ["z", "ä", "a"]
    assert decoded.many
    assert decoded.images.dtype == np.uint8


def test_options_are_fields_or_headers_and_no_images():
    decoded = decode({"top_k": bytearray(b"3"), "a": PNG, "max_value": "255"}, x_top_k="3")
    assert (len(decoded.images), decoded.top_k) == (1, 3)


def test_scale_is_told_for_each_field():
    decoded = decode({"scaled": npy_of(IMAGE / np.float32(255)), "whole": PNG})
    assert decoded.fields is not None
    assert [field.scaled for field in decoded.fields] == [True, False]
    assert np.array_equal(decoded.images, np.stack([IMAGE, IMAGE]))


def test_256_fields_are_taken():
    assert len(decode({f"p{index}": PNG for index in range(256)}).images) == 256


@pytest.mark.parametrize("length", [str(len(PNG) + 200), "", "many", "9" * 99])
def test_a_usual_or_strange_content_length_is_no_repeated_field(length):
    assert len(decode({"a": PNG}, content_length=length).images) == 1


# The smallest PNG that there is, 67 to 70 bytes.
DOT = encode(Image.new("L", (1, 1)))


def as_sent(parts: list[tuple[str, str, bytes]], client: str) -> DecodedRequest:
    """Decode what TorchServe leaves of a form that a client writes; parts are (name, file name, content)."""
    if client == "requests":
        files = [(name, (file, content)) for name, file, content in parts]
        prepared = requests.Request("POST", "http://localhost", files=files).prepare()
        length, content_type = len(prepared.body or b""), prepared.headers["Content-Type"]
    else:  # as curl writes it
        content_type = f"multipart/form-data; boundary={'-' * 24}{'x' * 22}"
        length = sum(
            len(f'--{content_type[30:]}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n')
            + len("Content-Type: image/jpeg\r\n\r\n\r\n")
            + len(content)
            for name, file, content in parts
        )
        length += len(f"--{content_type[30:]}--\r\n")
    fields = {name: bytearray(content) for name, _file, content in parts}
    return decode_form(fields, {"content-type": content_type, "content-length": str(length)})


@pytest.mark.parametrize("client", ["requests", "curl"])
@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("content", [DOT, PNG, npy_of(IMAGE)], ids=["a dot", "PNG", "npy"])
def test_files_of_one_name_are_found_out_however_small(content, count, client):
    with pytest.raises(BadInput) as caught:
        as_sent([("image", f"{index}.png", content) for index in range(count)], client)
    assert caught.value.code == "repeated_field"
    assert "name of its own" in caught.value.message


@pytest.mark.parametrize("client", ["requests", "curl"])
@pytest.mark.parametrize("count", [1, 2, 40, 256])
@pytest.mark.parametrize("file", ["", "a.png", "long-name-" * 9 + ".jpeg"], ids=["no name", "a name", "a long name"])
def test_files_of_several_names_are_all_answered(file, count, client):
    decoded = as_sent([(f"image{index}", file, DOT) for index in range(count)], client)
    assert len(decoded.images) == count


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [("Multipart/Form-Data; boundary=x", True), ("multipart/mixed", False), ("", False), (None, False)],
)
def test_forms_are_told_by_their_content_type(content_type, expected):
    assert is_form(content_type) is expected


@pytest.mark.parametrize(("fields", "headers", "code", "words"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_rejection_names_the_field(fields, headers, code, words):
    with pytest.raises(BadInput) as caught:
        decode_form(fields, HEADERS | headers)
    rejection = caught.value
    assert (rejection.code, rejection.status) == (code, STATUS_OF_CODE[code])
    assert [word for word in words if word not in rejection.message] == []
    rejection.message.encode()
    assert PYTHON_INSIDES.search(rejection.message) is None
    assert len(rejection.message) < 500


CONTENTS = st.binary() | st.text() | st.none() | st.integers() | st.lists(st.integers()) | st.just(PNG)
FIELDS = st.dictionaries(st.text() | st.sampled_from(["top_k", "max_value", "a"]), CONTENTS, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(FIELDS, st.dictionaries(st.sampled_from(["x-top-k", "content-length", "content-type"]), st.text()))
def test_no_form_raises_anything_but_bad_input(fields, headers):
    try:
        decoded = decode_form(fields, HEADERS | headers)
    except BadInput as rejection:
        rejection.message.encode()
    else:
        assert decoded.images.shape[1:] == (32, 32, 3)
