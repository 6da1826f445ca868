"""From NumPy's .npy files to images (N, 32, 32, 3).

The header is read here and not by numpy.load: it is a few lines, nothing in it is believed before it was compared with
the bytes that came, and nothing is unpickled.
The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bad_input import BadInput, show
from pixels import IMAGE_LENGTH, IMAGE_SHAPE, DecodedImages, check_count, decode_numbers

NPY_SIGNATURE = b"\x93NUMPY"

_KEYS = {"descr", "fortran_order", "shape"}
# How many bytes tell the header's length, by the format's version.
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
# numpy.save writes 118. Only tables with named columns need more, and ast must not meet text of any length.
_MAX_HEADER_BYTES = 1024
_TAKEN_DTYPE = re.compile(r"[<>=|]?(u1|f\d{1,2})")


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[np.uint8] | np.dtype[np.floating]
    fortran_order: bool
    shape: tuple[int, ...]
    end: int  # where the numbers begin, in bytes


def is_npy(body: bytes | bytearray) -> bool:
    """Tell by the first bytes whether this is an .npy file."""
    return body.startswith(NPY_SIGNATURE)


def decode_npy(body: bytes | bytearray, max_value: int | None) -> tuple[DecodedImages, bool]:
    """Read one array.

    Args:
        body: the file: uint8 or floats of any width and byte order, in C or Fortran order, of the shape (32, 32, 3) or
            (N, 32, 32, 3), N from 1 to 256.
        max_value: 255 or 1 where the sender said so, None to tell by the numbers; of no concern to uint8.

    Returns:
        The images, for uint8 in C order a view of `body`; and whether the array has the dimension N.

    Raises:
        BadInput: anything else.
    """
    header = _read_header(body)
    many = _check_shape(header.shape)
    _check_length(header, len(body) - header.end)
    numbers = np.frombuffer(body, dtype=header.dtype, offset=header.end)
    numbers = numbers.reshape(header.shape[::-1]).T if header.fortran_order else numbers.reshape(header.shape)
    if header.dtype == np.uint8:
        # No copy in C order.
        return DecodedImages(
            np.ascontiguousarray(numbers, dtype=np.uint8).reshape(-1, *IMAGE_SHAPE), scaled=False
        ), many
    return decode_numbers(
        _to_doubles(numbers), lambda index: f"array[{index}]" if many else "The array", max_value
    ), many


def _to_doubles(numbers: NDArray[np.floating]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):  # long doubles beyond float64 become infinite, and are rejected
        return np.ascontiguousarray(numbers, dtype=np.float64).reshape(-1, IMAGE_LENGTH)


# The header ----------------------------------------------------------------------------------------------------------


def _read_header(body: bytes | bytearray) -> _Header:
    if not is_npy(body):
        raise _malformed(f"it begins with {show(bytes(body[:8]))}, not with {show(NPY_SIGNATURE)}")
    version = tuple(body[6:8])
    width = _LENGTH_BYTES.get(version)  # type: ignore[arg-type]  # a tuple of another length is in no key
    if width is None:
        raise _malformed(f"its version is {'.'.join(map(str, version)) or 'missing'}, expected 1.0, 2.0 or 3.0")
    start = 8 + width
    length = int.from_bytes(body[8:start], "little")
    if length > _MAX_HEADER_BYTES:
        raise _malformed(f"its header claims {length:,} bytes, at most {_MAX_HEADER_BYTES:,} are read")
    if start + length > len(body):
        raise _malformed(f"its header claims {length:,} bytes, but only {max(0, len(body) - start):,} follow")
    keys = _parse_keys(bytes(body[start : start + length]))
    shape = keys["shape"]
    if type(keys["fortran_order"]) is not bool:
        raise _malformed(f"fortran_order is {show(keys['fortran_order'])}, expected True or False")
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise _malformed(f"its shape is {show(repr(shape))}, expected whole numbers in brackets")
    return _Header(_read_dtype(keys["descr"]), keys["fortran_order"], shape, start + length)


def _parse_keys(header: bytes) -> dict[str, object]:
    try:
        # Literals only: nothing in the header is executed.
        keys = ast.literal_eval(header.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _malformed(f"its header is broken: {show(header)}") from None
    if type(keys) is not dict or set(keys) != _KEYS:
        raise _malformed(f"its header {show(header)} must have exactly the keys {', '.join(sorted(_KEYS))}")
    return keys


def _read_dtype(descr: object) -> np.dtype[np.uint8] | np.dtype[np.floating]:
    if isinstance(descr, str) and _TAKEN_DTYPE.fullmatch(descr):
        try:
            return np.dtype(descr)
        except TypeError:  # a width that this machine does not have
            pass
    if "O" in repr(descr):
        raise BadInput(
            "pickled_npy",
            "The .npy file holds pickled Python objects (dtype object), which are never opened. Save plain numbers: "
            "numpy.save(file, numpy.asarray(images, dtype=numpy.uint8), allow_pickle=False).",
        )
    raise BadInput(
        "wrong_datatype",
        f"The .npy file has the dtype {show(descr)}, expected uint8 or floats. For numbers in 0–255: "
        "images.astype(numpy.uint8).",
    )


def _check_shape(shape: tuple[int, ...]) -> bool:
    """Say whether the shape has the dimension N; raises BadInput where it fits neither form."""
    shown = "×".join(f"{length:,}" if length < 10**9 else "huge" for length in shape[:6]) or "no dimension"
    if shape[-3:] == (3, 32, 32) and len(shape) in (3, 4):
        raise BadInput(
            "channels_first",
            f"The array is {shown}, channels first, expected channels last, 32×32×3 or N×32×32×3. "
            "In PyTorch: images.movedim(-3, -1); in numpy: numpy.moveaxis(images, -3, -1).",
        )
    if len(shape) not in (3, 4) or shape[-3:] != IMAGE_SHAPE:
        raise BadInput(
            "wrong_shape", f"The array is {shown}, expected 32×32×3 (row, column, RGB channel) or N×32×32×3."
        )
    if len(shape) == 4:
        if shape[0] == 0:
            raise BadInput("no_images", "The array is 0×32×32×3, expected 1 to 256 images.")
        check_count(min(shape[0], 10**9))  # the claimed number may be too long to print
    return len(shape) == 4


def _check_length(header: _Header, came: int) -> None:
    expected = math.prod(header.shape) * header.dtype.itemsize
    if came != expected:
        raise BadInput(
            "shape_mismatch",
            f"The header of the .npy file claims {'×'.join(map(str, header.shape))} numbers of "
            f"{header.dtype.itemsize} bytes, {expected:,} in all, but {came:,} bytes follow it. Send the file whole, "
            "and one array only.",
        )


def _malformed(reason: str) -> BadInput:
    return BadInput(
        "malformed_npy",
        f"The body is no .npy file that can be read: {reason}. Write it by numpy.save and send it byte for byte: curl "
        "wants --data-binary or -T, not -d.",
    )
