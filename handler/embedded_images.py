"""Image files inside JSON: base64 text, alone or in objects as TensorFlow Serving's and KServe's users write them."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bad_input import BadInput, show
from pictures import MAX_PIXELS, decode_counted, is_picture
from pixels import DecodedImages, check_count, decode_image, decode_images

# {"image_bytes": {"b64": "…"}} has two.
_MAX_WRAPPERS = 3
_DATA_URI = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
_BLANKS = str.maketrans("", "", " \t\r\n")
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def holds_image_files(values: list[Any]) -> bool:
    """Tell whether some elements are text or objects, in which image files stand; numbers stand in lists."""
    kinds = list(map(type, values))
    return bool(kinds.count(str) or kinds.count(dict))


def decode_embedded_image(value: object, key: str, max_value: int | None) -> DecodedImages:
    """Read one image, given as text or object; other arguments and errors as for `pixels.decode_image`."""
    content = unwrap(value, key)
    if not isinstance(content, str):
        return decode_image(content, key, max_value)
    _check_scale(max_value, key)
    return DecodedImages(decode_image_files([decode_base64(content, key)], lambda _: key), scaled=False)


def decode_embedded_images(values: list[Any], key: str, max_value: int | None) -> DecodedImages:
    """Read a list of images, some of which are text or objects; otherwise as `pixels.decode_images`."""
    check_count(len(values))
    contents = [unwrap(value, f"{key}[{index}]") for index, value in enumerate(values)]
    places = [index for index, content in enumerate(contents) if isinstance(content, str)]
    if not places:
        return decode_images(contents, key, max_value)
    _check_scale(max_value, f"{key}[{places[0]}]")
    names = [f"{key}[{place}]" for place in places]
    files = [decode_base64(str(contents[place]), name) for place, name in zip(places, names, strict=True)]
    images = decode_image_files(files, names.__getitem__)
    if len(places) == len(contents):
        return DecodedImages(images, scaled=False)
    for place, image in zip(places, images, strict=True):
        contents[place] = image.ravel().tolist()  # so that numbers beside it are checked under their own names
    pixels = decode_images(contents, key, max_value)
    if pixels.scaled:
        raise BadInput(
            "mixed_scales",
            f"{names[0]} is an image file, whose pixels are in 0–255, but beside it stand numbers in 0–1. Send all "
            "images in one scale.",
        )
    return pixels


def unwrap(value: object, name: str) -> object:
    """Take an image out of objects of one key each, whatever they are called: {"b64": "…"}, {"image_bytes": {…}}."""
    for _ in range(_MAX_WRAPPERS):
        if type(value) is not dict:
            break
        if len(value) != 1:
            keys = ", ".join(show(key) for key in list(value)[:5]) or "none"
            raise BadInput(
                "wrong_nesting",
                f'{name} is an object with the keys {keys}, expected one key, as in {{"b64": "…"}}: the image file in '
                "base64, or its numbers.",
            )
        [value] = value.values()
    return value


def decode_base64(text: str, name: str) -> bytes:
    """Undo base64, standard or URL-safe, with or without padding, line breaks or `data:image/png;base64,` before it."""
    prefix = _DATA_URI.match(text)
    digits = (text[prefix.end() :] if prefix else text).translate(_BLANKS).translate(_STANDARD_ALPHABET).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise BadInput(
            "malformed_base64",
            f"{name} is text that is no base64 ({error}): it begins with {show(text[:20])}. Text stands for an image "
            "file in base64; numbers go into a list, without quotation marks.",
        ) from None


def decode_image_files(files: Sequence[bytes], name_of: Callable[[int], str]) -> NDArray[np.uint8]:
    """Read PNG and JPEG files to uint8 (N, 32, 32, 3); all together may have the pixels that one may."""
    left = MAX_PIXELS
    images = np.empty((len(files), 32, 32, 3), dtype=np.uint8)
    for index, file in enumerate(files):
        try:
            images[index], spent = _decode_file(file, left)
        except BadInput as rejection:
            raise BadInput(rejection.code, f"{name_of(index)} is rejected. {rejection.message}") from None
        left -= spent
    return images


def _decode_file(file: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], int]:
    if not is_picture(file):
        raise BadInput(
            "unsupported_picture",
            f"Its {len(file):,} bytes begin with {show(file[:12])}, expected a PNG or JPEG file. Raw pixels and .npy "
            "arrays go into a body of their own, with Content-Type: application/octet-stream or application/x-npy.",
        )
    return decode_counted(file, max_pixels)


def _check_scale(max_value: int | None, name: str) -> None:
    if max_value == 1:
        raise BadInput(
            "wrong_max_value",
            f"max_value is 1, but {name} is an image file, whose pixels are whole numbers in 0–255. Leave max_value "
            "out.",
        )
