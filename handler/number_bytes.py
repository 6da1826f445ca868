"""Raw bytes that are wider numbers than uint8, so that one image would be taken for two, four or eight.

Nothing in such a body says so. It is inferred from what the bytes would be as each type of numbers, and only where they
cannot be an image as well. In an image all bytes of a colour are alike, wherever they stand; in wider numbers the bytes
at one place in four, say, hold the exponent and are of a narrow range, while those at another place are not.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixels import IMAGE_LENGTH

_SAMPLE = 64  # numbers that are looked at before all are: enough to tell for nearly every image
# A float of an image is 0, or hardly ever smaller than this: 1/255 is 0.004, and few normalised ones come near 0.
_SMALLEST, _LARGEST = 2.0**-15, 256.0
_MOST_TINY = 0.05  # of all
_LEAST_NOT_ZERO = 0.5  # of all: zeros are black pixels as well
_LEAST_VALUES = 16  # which no pattern of a few colours has

_Numbers = NDArray[Any]


def find_number_type(body: bytes | bytearray) -> str | None:
    """Name the type of the numbers, like "float32", or None where the bytes may be pixels.

    Known are floats of 4 and 8 bytes in 0–255 or normalised; and floats of 2 bytes and integers of 2, 4 and 8 that hold
    nothing but 0 to 255, or such numbers divided by 255. Of either byte order.

    Args:
        body: N × 3,072 bytes.
    """
    if len(body) % (2 * IMAGE_LENGTH):  # as for a single image
        return None
    with np.errstate(all="ignore"):
        for descr, width, may_be, are in _types():
            if len(body) % (width * IMAGE_LENGTH):
                continue
            numbers = np.frombuffer(body, dtype=descr)
            if may_be(numbers[:_SAMPLE]) and _are_not_black(numbers) and may_be(numbers) and are(numbers):
                return f"{np.dtype(descr).name}{' of big-endian byte order' if descr.startswith('>') else ''}"
    return None


_Check = Callable[[_Numbers], bool]


def _types() -> Iterator[tuple[str, int, _Check, _Check]]:
    """Yield each type with its width in bytes, a check of a part of the numbers and one of all."""
    for order in "<>":
        yield f"{order}f4", 4, _in_range, _have_exponents
        yield f"{order}f8", 8, _in_range, _have_exponents
        for kind in ("f2", "i2", "i4", "i8"):
            yield f"{order}{kind}", int(kind[1]), _are_pixel_values, _are_many_values


def _are_not_black(numbers: _Numbers) -> bool:
    return bool(np.count_nonzero(numbers) >= _LEAST_NOT_ZERO * len(numbers))


def _in_range(numbers: _Numbers) -> bool:
    sizes = np.abs(numbers)
    if not sizes.max() <= _LARGEST:  # NaN fails this too
        return False
    return bool(np.count_nonzero((sizes > 0) & (sizes < _SMALLEST)) <= _MOST_TINY * len(numbers))


def _have_exponents(numbers: _Numbers) -> bool:
    """Tell whether the bytes at the place of the exponent differ from those at the other end and between.

    In an image they are of the same colours, whatever it shows: a constant one is all 0.75 as float32, and columns in
    two colours in turns may repeat after two bytes.
    """
    numbers = numbers[numbers != 0]
    places = numbers.view(np.uint8).reshape(len(numbers), -1)
    if not numbers.dtype.isnative:
        places = places[:, ::-1]
    exponents = np.unique(places[:, -1])
    return all(np.isin(places[:, place], exponents).mean() < 0.5 for place in (0, *range(1, places.shape[1] - 1, 2)))


def _are_pixel_values(numbers: _Numbers) -> bool:
    if numbers.dtype.kind == "i":
        return bool(numbers.min() >= 0 and numbers.max() <= 255)
    values = numbers.astype(np.float32)
    if not (values.min() >= 0 and values.max() <= 255):
        return False
    scaled = values * 255 if values.max() <= 1 else values
    return bool((np.abs(scaled - np.round(scaled)) <= scaled * 2.0**-10).all())


def _are_many_values(numbers: _Numbers) -> bool:
    return len(np.unique(numbers)) >= _LEAST_VALUES
