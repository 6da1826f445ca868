"""Bytes of a fitting length that are no pixels are named; bytes that may be pixels are taken."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from bad_input import BadInput
from decoding import decode_request
from file_signatures import find_known_file
from number_bytes import find_number_type
from tests.handler.known_files import OTHERS, PICTURES, WHOLE, WIDE_NUMBERS, padded
from tests.handler.samples import IMAGE, JPEG, JSON, PNG, RAW

pytestmark = pytest.mark.slow

KNOWN = {name: (padded(file), "unsupported_picture") for name, file in PICTURES.items()}
KNOWN |= {name: (padded(file), "unsupported_file") for name, file in OTHERS.items()}
KNOWN |= {name: (file, "unsupported_file") for name, file in WHOLE.items()}


@pytest.mark.parametrize("content_type", [RAW, None])
@pytest.mark.parametrize(("file", "code"), KNOWN.values(), ids=KNOWN)
def test_a_file_of_a_fitting_length_is_named(file, code, content_type):
    assert len(file) % 3072 == 0
    with pytest.raises(BadInput) as caught:
        decode_request(bytearray(file), content_type, {})  # as TorchServe hands it over
    assert (caught.value.code, caught.value.status) == (code, 415)
    known = find_known_file(file)
    assert known is not None
    assert known.name in caught.value.message


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_another_kind_is_named_under_any_content_type(name):
    with pytest.raises(BadInput) as caught:
        decode_request(PICTURES[name], "image/png", {})
    assert caught.value.code == "unsupported_picture"
    assert find_known_file(PICTURES[name]).name in caught.value.message  # type: ignore[union-attr]


@pytest.mark.parametrize("content_type", [RAW, None])
@pytest.mark.parametrize("array", WIDE_NUMBERS.values(), ids=WIDE_NUMBERS)
def test_wider_numbers_are_named(array, content_type):
    with pytest.raises(BadInput) as caught:
        decode_request(bytearray(array.tobytes()), content_type, {})
    assert (caught.value.code, caught.value.status) == ("numbers_as_raw", 422)
    assert array.dtype.name in caught.value.message
    assert "x-npy" in caught.value.message


@pytest.mark.parametrize("file", [padded(JPEG), padded(PNG), PNG + bytes(3072)], ids=["JPEG", "PNG", "not fitting"])
def test_a_picture_with_bytes_behind_its_end_is_no_raw_image(file):
    with pytest.raises(BadInput) as caught:
        decode_request(file, RAW, {})
    assert caught.value.code == "picture_as_raw"


@pytest.mark.parametrize("text", ['{"image": [1, 2]', "[" + "1, " * 40 + "1"], ids=["object", "list"])
def test_json_of_a_fitting_length_is_no_raw_image(text):
    body = text.ljust(3071).encode() + (b"}" if text.startswith("{") else b"]")
    with pytest.raises(BadInput) as caught:
        decode_request(body, RAW, {})
    assert caught.value.code == "json_as_raw"


# What must be taken --------------------------------------------------------------------------------------------------


def check_taken(images: np.ndarray) -> None:
    for content_type in (RAW, None):
        assert np.array_equal(decode_request(bytearray(images.tobytes()), content_type, {}).images, images)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_every_image_of_one_colour_is_taken(count):
    """Each byte alone, and as a colour with some others: 0x3f3f3f3f is 0.747 as float32."""
    for value in range(256):
        for other in (value, 0, 0x3F, 0x40, 0xBF, 255):
            image = np.empty((count, 32, 32, 3), np.uint8)
            image[:] = (value, other, value)
            assert find_number_type(image.tobytes()) is None, (value, other)
    check_taken(np.zeros((count, 32, 32, 3), np.uint8))


def scenes(seed: int) -> np.ndarray:
    """Eight images as photographs and drawings are: smooth, flat, dark, noisy, striped, nearly black, in few greys."""
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.integers(0, 256, 2))
    made = []
    for kind in range(8):
        image = Image.new("RGB", (32, 32), tuple(int(value) for value in rng.integers(low, high + 1, 3)))
        draw = ImageDraw.Draw(image)
        for _ in range(kind * 3):
            x, y = (int(value) for value in rng.integers(0, 32, 2))
            draw.ellipse((x, y, x + 9, y + 7), fill=tuple(int(value) for value in rng.integers(low, high + 1, 3)))
        if kind % 3 == 1:
            image = image.filter(ImageFilter.GaussianBlur(int(rng.integers(1, 5))))
        noise = rng.normal(0, 4 * (kind % 3), (32, 32, 3))
        made.append(np.clip(np.asarray(image) + noise, low, high).astype(np.uint8))
    return np.stack(made)


def test_a_thousand_drawn_scenes_are_taken():
    for seed in range(1000):
        assert find_number_type(scenes(seed).tobytes()) is None, seed


def test_a_thousand_requests_of_noise_are_taken():
    rng = np.random.default_rng(11)
    for number in range(1000):
        low, high = sorted(rng.integers(0, 257, 2))
        images = rng.integers(low, max(high, low + 1), (8, 32, 32, 3), dtype=np.uint8)
        assert find_number_type(images.tobytes()) is None, (number, low, high)


def gradients(*, step: int) -> np.ndarray:
    ramp = np.arange(0, 32 * step, step, dtype=np.uint8)
    return np.broadcast_to(ramp[None, :, None, None], (8, 32, 32, 3)).copy()


def test_gradients_are_taken():
    for step in range(1, 9):
        for shift in range(0, 256, 5):
            images = gradients(step=step) + np.uint8(shift)
            for turned in (images, images.transpose(0, 2, 1, 3), images // 16 + np.uint8(56)):
                assert find_number_type(np.ascontiguousarray(turned).tobytes()) is None, (step, shift)


def test_greyscale_images_with_a_few_bright_pixels_are_taken():
    for column in range(32):
        images = np.zeros((8, 32, 32, 3), np.uint8)
        images[:, :, column] = 60
        assert find_number_type(images.tobytes()) is None


COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


@settings(max_examples=300, deadline=None)
@given(st.lists(COLOURS, min_size=1, max_size=32), st.integers(1, 4))
@example([(0, 56, 0), (56, 0, 56)], 1)
@example([(0, 56, 0), (56, 0, 57)], 1)
def test_columns_of_any_colours_are_taken(colours, width):
    row = np.array([colours[(column // width) % len(colours)] for column in range(32)], dtype=np.uint8)
    images = np.broadcast_to(row, (8, 32, 32, 3))
    assert find_number_type(images.tobytes()) is None


def test_twenty_thousand_images_begin_like_no_file():
    """Of any range of brightness: many signatures are of few and small bytes."""
    rng = np.random.default_rng(5)
    for number in range(20_000):
        low = int(rng.integers(0, 256))
        high = int(rng.integers(low, min(256, low + 2 ** int(rng.integers(0, 9)))))
        image = rng.integers(low, high + 1, 3072, dtype=np.uint8)
        assert find_known_file(bytearray(image.tobytes())) is None, (number, low, high)


# What is told of other content types ---------------------------------------------------------------------------------

BOMS = {"UTF-8": "utf-8-sig", "UTF-16": "utf-16", "UTF-32": "utf-32", "UTF-16, no mark": "utf-16-le"}


@pytest.mark.parametrize("content_type", [JSON, None])
@pytest.mark.parametrize("encoding", BOMS.values(), ids=BOMS)
def test_json_behind_a_byte_order_mark_is_taken(encoding, content_type):
    text = " " * (encoding != "utf-16-le") + str(IMAGE.ravel().tolist())
    assert np.array_equal(decode_request(bytearray(text.encode(encoding)), content_type, {}).images[0], IMAGE)


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        pytest.param('{"image": []}', "text/plain", "Content-Type: application/json", id="text, as TorchServe has it"),
        pytest.param("\ufeff [1]", "text/plain; charset=utf-8", "application/json", id="text with a mark"),
        pytest.param(b'{"image": []}', "application/vnd.api+json", "application/json", id="another JSON"),
        pytest.param(PNG, "application/x-png", "image/png", id="PNG under an old name"),
        pytest.param(b"\x93NUMPY\1\0", "application/numpy", "application/x-npy", id="npy"),
        pytest.param(PICTURES["GIF"], "image/gif", "a GIF file", id="GIF"),
    ],
)
def test_a_wrong_content_type_names_the_right_one(body, content_type, words):
    with pytest.raises(BadInput) as caught:
        decode_request(body, content_type, {})
    assert caught.value.status == 415
    assert words in caught.value.message.partition("multipart/form-data.")[2]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" + b"[]," * 400_000 + b"[]]", id="lists"),
        pytest.param(b'{"image": [' + b"1," * 2_000_000 + b"1]}", id="numbers"),
        pytest.param(b"{" + b'"":1,' * 20_000 + b'"":1}', id="keys"),
        pytest.param(b"[" + b"{}," * 400_000, id="objects, cut"),
    ],
)
@pytest.mark.parametrize("content_type", [JSON, None])
def test_json_of_more_than_a_request_may_hold_is_not_parsed(body, content_type):
    with pytest.raises(BadInput) as caught:
        decode_request(body, content_type, {})
    assert (caught.value.code, caught.value.status) == ("too_much_work", 413)
