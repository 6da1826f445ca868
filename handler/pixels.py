"""From numbers to images: JSON lists and raw bytes to arrays (N, 32, 32, 3)."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bad_input import BadInput, show

IMAGE_SHAPE = (32, 32, 3)  # row, column, RGB channel
IMAGE_LENGTH = 32 * 32 * 3
MAX_IMAGES = 256

_EXPECTED = "3,072 numbers in the order row, column, RGB channel, or a list nested 32×32×3"
_CHANNEL_NAMES = ("red", "green", "blue")
_SHOWN_DEPTH = 6  # JSON may nest a thousand deep; messages need not

Images = NDArray[np.uint8] | NDArray[np.float32]


class DecodedImages(NamedTuple):
    """Images ready for the network.

    Attributes:
        images: uint8, or float32 in 0–255, (N, 32, 32, 3).
        scaled: whether the numbers were taken as scaled to 0–1, and so multiplied by 255.
    """

    images: Images
    scaled: bool


def decode_raw(body: bytes | bytearray) -> NDArray[np.uint8]:
    """Read N × 3,072 bytes.

    Returns:
        uint8 (N, 32, 32, 3), a view of `body`.

    Raises:
        BadInput: the length is no multiple of 3,072, or N is above 256.
    """
    if len(body) % IMAGE_LENGTH:
        raise BadInput(
            "wrong_length",
            f"The body has {len(body):,} bytes, expected a multiple of {IMAGE_LENGTH:,}: one byte a number, 32×32×3 "
            "an image. For an image file send Content-Type image/png or image/jpeg, for JSON application/json.",
        )
    check_count(len(body) // IMAGE_LENGTH)
    return np.frombuffer(body, dtype=np.uint8).reshape(-1, *IMAGE_SHAPE)


def decode_image(value: object, key: str, max_value: int | None) -> DecodedImages:
    """Read one image, flat or nested.

    Args:
        value: parsed JSON of any kind.
        key: what to call it in a message.
        max_value: 255 or 1 where the sender said so, None to tell by the numbers.

    Raises:
        BadInput: see `bad_input.STATUS_OF_CODE`.
    """
    return _to_pixels([_flatten(value, key)], lambda _: key, max_value)


def decode_images(values: object, key: str, max_value: int | None) -> DecodedImages:
    """Read a list of 1 to 256 images, each flat or nested; arguments and errors as for `decode_image`."""
    if type(values) is not list:
        raise _not_a_list(values, key, "a list of images")
    if not values:
        raise BadInput("no_images", f"{key} is an empty list, expected 1 to {MAX_IMAGES} images.")
    shape = _claimed_shape(values)
    if len(shape) == 1 or shape in (IMAGE_SHAPE, (3, 32, 32)):
        raise BadInput(
            "wrong_nesting",
            f"{key} holds one image or bare numbers ({_show_shape(shape)}), expected a list of images. "
            'Send one image under the key "image", or put it into a list.',
        )

    def name_of(index: int) -> str:
        return f"{key}[{index}]"

    # Counted after the first 256 were opened, so that a list of 1,024 pixels is told about its nesting.
    flats = [_flatten(value, name_of(index)) for index, value in enumerate(values[:MAX_IMAGES])]
    check_count(len(values))
    return _to_pixels(flats, name_of, max_value)


def decode_bare_list(values: list[Any], max_value: int | None) -> tuple[DecodedImages, bool]:
    """Read a JSON body that is itself a list: its nesting says whether it is one image or a list of images.

    Returns:
        The images, and whether they came as a list of images.
    """
    depth = len(_claimed_shape(values))
    if depth in (1, 3):  # 3,072, or 32×32×3
        return decode_image(values, "the list", max_value), False
    return decode_images(values, "the list", max_value), True


def decode_numbers(numbers: NDArray[np.float64], name_of: Callable[[int], str], max_value: int | None) -> DecodedImages:
    """Read images that came as an array of floats; the rules of scale are those of JSON.

    Args:
        numbers: (N, 3072), any values.
        name_of: what to call the image of an index in a message.
        max_value: as for `decode_image`.

    Raises:
        BadInput: NaN, infinity, out of range, or two scales in one request.
    """
    outside = ~((numbers >= 0) & (numbers <= 255)).all(axis=1)  # NaN is neither
    if outside.any():
        index = int(outside.argmax())
        _check_finite(numbers[index], name_of(index))
        raise _out_of_range(numbers[index].tolist(), name_of(index))
    whole = numbers.astype(np.uint8)
    are_whole = (whole == numbers).all(axis=1)
    return _join(
        [whole[index] if are_whole[index] else numbers[index] for index in range(len(numbers))], name_of, max_value
    )


def decode_flat(values: list[Any], count: int, name_of: Callable[[int], str], max_value: int | None) -> DecodedImages:
    """Read `count` images whose numbers stand in one flat list of count × 3,072; otherwise as `decode_image`."""
    flats = [values[start : start + IMAGE_LENGTH] for start in range(0, count * IMAGE_LENGTH, IMAGE_LENGTH)]
    return _to_pixels(flats, name_of, max_value)


def check_count(count: int) -> None:
    """Reject more than MAX_IMAGES images in one request."""
    if count > MAX_IMAGES:
        raise BadInput(
            "too_many_images",
            f"{count:,} images came, at most {MAX_IMAGES} go into one request. Send them in several requests.",
        )


# From a list of any nesting to 3,072 elements ------------------------------------------------------------------------


def _flatten(value: object, name: str) -> list[Any]:
    """Bring one image to a flat list of 3,072 elements that are not yet checked to be numbers."""
    if type(value) is not list:
        raise _not_a_list(value, name, "an image")
    if not value or type(value[0]) is not list:
        if len(value) != IMAGE_LENGTH:
            raise _wrong_length(len(value), name)
        return value
    shape = _claimed_shape(value)
    if shape != IMAGE_SHAPE:
        raise _wrong_shape(shape, name)
    return _open_level(_open_level(value, 32, name), 3, name)


def _open_level(parts: list[Any], length: int, name: str) -> list[Any]:
    """Join lists that must all have the same length; numpy would need three times as long to find out."""
    if list(map(type, parts)).count(list) != len(parts) or list(map(len, parts)).count(length) != len(parts):
        raise BadInput(
            "ragged_image",
            f"{name} is ragged: not all of its {'rows' if length == 32 else 'pixels'} are lists of {length}. "
            f"Expected {_EXPECTED}.",
        )
    return list(chain.from_iterable(parts))


def _claimed_shape(value: object) -> tuple[int, ...]:
    """Follow the first elements down. A loop, because a recursive function fails on JSON nested a thousand deep."""
    shape: list[int] = []
    while type(value) is list and len(shape) < _SHOWN_DEPTH:
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _show_shape(shape: Sequence[int]) -> str:
    return "×".join(f"{length:,}" for length in shape) + ("×…" if len(shape) == _SHOWN_DEPTH else "")


def _not_a_list(value: object, name: str, what: str) -> BadInput:
    return BadInput(
        "not_a_list",
        f"{name} is {show(value)}, expected {what} as a JSON list: {_EXPECTED}. "
        "An image file goes into the body as it is, with Content-Type image/png or image/jpeg.",
    )


def _wrong_length(length: int, name: str) -> BadInput:
    advice = ""
    if length and length % IMAGE_LENGTH == 0:
        advice = f' It looks like {length // IMAGE_LENGTH} images: send a list of them under the key "images".'
    elif length in (32 * 32, 28 * 28):
        advice = " It looks like a greyscale image: repeat each number for red, green and blue, at 32×32 pixels."
    return BadInput("wrong_length", f"{name} has {length:,} numbers, expected {_EXPECTED}.{advice}")


def _wrong_shape(shape: tuple[int, ...], name: str) -> BadInput:
    if shape == (3, 32, 32):
        return BadInput(
            "channels_first",
            f"{name} is nested 3×32×32, channels first, expected channels last, 32×32×3. "
            "In PyTorch: image.permute(1, 2, 0); in numpy: image.transpose(1, 2, 0).",
        )
    advice = f' Send several images under the key "images", at most {MAX_IMAGES}.' if len(shape) == 4 else ""
    return BadInput("wrong_nesting", f"{name} is nested {_show_shape(shape)}, expected {_EXPECTED}.{advice}")


# From elements to numbers --------------------------------------------------------------------------------------------


def _to_pixels(flats: list[list[Any]], name_of: Callable[[int], str], max_value: int | None) -> DecodedImages:
    """Check the elements and join the images."""
    return _join([_to_numbers(flat, name_of(index)) for index, flat in enumerate(flats)], name_of, max_value)


def _join(
    arrays: Sequence[NDArray[np.uint8] | NDArray[np.float64]], name_of: Callable[[int], str], max_value: int | None
) -> DecodedImages:
    """Join images of 3,072 numbers in 0–255; whether they are scaled to 0–1 is decided over the whole request."""
    if _are_scaled(arrays, name_of, max_value):
        # In float64: float32 numbers printed by ToTensor then come back as the whole numbers that they were made from.
        scaled = np.stack(arrays).astype(np.float64) * 255
        return DecodedImages(scaled.astype(np.float32).reshape(-1, *IMAGE_SHAPE), scaled=True)
    all_whole = all(array.dtype == np.uint8 for array in arrays)
    images = np.stack(arrays).reshape(-1, *IMAGE_SHAPE)
    return DecodedImages(images.astype(np.uint8, copy=False) if all_whole else images.astype(np.float32), scaled=False)


def _to_numbers(flat: list[Any], name: str) -> NDArray[np.uint8] | NDArray[np.float64]:
    """Turn 3,072 JSON values into numbers in 0–255: uint8 where all are whole, else float64.

    numpy alone will not do: numpy.array(flat, dtype=...) takes "7" for 7 and true for 1 in silence. Types are therefore
    counted first. For whole numbers, the usual case, counting takes 33 µs and bytearray, which also checks the range,
    6 µs; numpy.array takes 48 to 72 µs without any check, a set of the types 55 µs, isinstance in a loop 88 µs.
    For fractions marshal's type tags would be twice as fast; they are CPython's private format. All ways are measured
    by benchmarks/decoding.py.
    """
    types = list(map(type, flat))
    whole_numbers = types.count(int)
    if whole_numbers == IMAGE_LENGTH:
        try:
            return np.frombuffer(bytearray(flat), dtype=np.uint8)
        except ValueError:
            raise _out_of_range(flat, name) from None
    if whole_numbers + types.count(float) != IMAGE_LENGTH:
        raise _not_a_number(flat, name)
    try:
        numbers = np.array(flat, dtype=np.float64)
    except OverflowError:  # a whole number beyond 1e308
        raise _out_of_range(flat, name) from None
    if not (numbers.min() >= 0 and numbers.max() <= 255):  # NaN and infinity fail this too
        _check_finite(numbers, name)
        raise _out_of_range(flat, name)
    whole = numbers.astype(np.uint8)
    return whole if np.array_equal(whole, numbers) else numbers


def _are_scaled(
    arrays: Sequence[NDArray[np.uint8] | NDArray[np.float64]], name_of: Callable[[int], str], max_value: int | None
) -> bool:
    if max_value == 255:
        return False
    in_unit_range = [bool(array.max() <= 1) for array in arrays]
    if max_value == 1:
        if not all(in_unit_range):
            index = in_unit_range.index(False)
            raise BadInput(
                "number_too_large",
                f"{name_of(index)} has numbers up to {arrays[index].max():g}, but max_value is 1. "
                "Send numbers in 0–1, or leave max_value out.",
            )
        return True
    # Whole numbers 0 and 1 are taken as 0–255: a nearly black image is likelier than one of pure colours only.
    fractions_in_unit_range = [
        in_range and array.dtype != np.uint8 for in_range, array in zip(in_unit_range, arrays, strict=True)
    ]
    if not any(fractions_in_unit_range):
        return False
    if not all(in_unit_range):
        raise BadInput(
            "mixed_scales",
            f"{name_of(fractions_in_unit_range.index(True))} has fractions in 0–1, as if scaled, but "
            f"{name_of(in_unit_range.index(False))} has numbers above 1. Send all images in one scale, "
            'or add "max_value": 255 if they are.',
        )
    return True


def _check_finite(numbers: NDArray[np.float64], name: str) -> None:
    for code, found, word in (("nan", np.isnan(numbers), "NaN"), ("infinity", np.isinf(numbers), "infinity")):
        if found.any():
            index = int(found.argmax())
            raise BadInput(
                code,
                f"{name} has {word} at {_place(index)}, expected numbers in 0–255. "
                "Look for a division by zero or an overflow where the numbers are made.",
            )


def _not_a_number(flat: list[Any], name: str) -> BadInput:
    index = next(index for index, value in enumerate(flat) if type(value) not in (int, float))
    value = flat[index]
    code = {bool: "boolean", type(None): "null", list: "ragged_image"}.get(type(value), "not_a_number")
    advice = " Leave out the quotation marks." if isinstance(value, str) else ""
    return BadInput(code, f"{name} has {show(value)} at {_place(index)}, expected a number in 0–255.{advice}")


def _out_of_range(flat: list[Any], name: str) -> BadInput:
    index = next(index for index, value in enumerate(flat) if not 0 <= value <= 255)
    value = flat[index]
    if value < 0:
        return BadInput(
            "negative_number",
            f"{name} has {show(value)} at {_place(index)}, expected numbers in 0–255. Negative numbers come from a "
            "normalised tensor: send raw pixels, the model normalises them itself.",
        )
    return BadInput(
        "number_too_large",
        f"{name} has {show(value)} at {_place(index)}, expected numbers in 0–255, or in 0–1. "
        "Bring deeper pixels down first: 16-bit ones, for example, divided by 257.",
    )


def _place(index: int) -> str:
    row, column, channel = np.unravel_index(index, IMAGE_SHAPE)
    return f"number {index:,} (row {row}, column {column}, {_CHANNEL_NAMES[int(channel)]}; all counted from 0)"
