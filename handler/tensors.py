"""Tensors of the Open Inference Protocol: their datatypes, and the binary form in which they stand behind the JSON.

The binary extension: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bad_input import BadInput, show
from pixels import IMAGE_LENGTH, IMAGE_SHAPE, MAX_IMAGES, DecodedImages, decode_numbers

BYTES = "BYTES"
# The protocol's numbers are little-endian.
NUMBER_TYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)


def is_integer(datatype: str) -> bool:
    """Tell whether a number type holds whole numbers, which always mean 0–255."""
    return NUMBER_TYPES[datatype].kind in "iu"


def read_numbers(
    data: memoryview, datatype: str, count: int, name_of: Callable[[int], str], max_value: int | None
) -> DecodedImages:
    """Read `count` images; of UINT8 they are a view of `data`.

    Raises:
        BadInput: another number of bytes, or numbers that are no pixels.
    """
    dtype = NUMBER_TYPES[datatype]
    expected = count * IMAGE_LENGTH * dtype.itemsize
    if len(data) != expected:
        raise BadInput(
            "shape_mismatch",
            f"inputs[0] has {count * IMAGE_LENGTH:,} numbers of {datatype} by its shape, {expected:,} bytes, but "
            f"{len(data):,} bytes came for it. Let the shape say what is sent.",
        )
    numbers = np.frombuffer(data, dtype=dtype).reshape(count, IMAGE_LENGTH)
    if dtype == np.uint8:
        return DecodedImages(numbers.astype(np.uint8, copy=False).reshape(-1, *IMAGE_SHAPE), scaled=False)
    return decode_numbers(numbers.astype(np.float64), name_of, max_value)


def read_elements(data: memoryview, count: int) -> list[bytes]:
    """Take BYTES apart: each element stands behind its length, four bytes.

    Raises:
        BadInput: cut, or not `count` elements.
    """
    elements: list[bytes] = []
    start = 0
    while start < len(data) and len(elements) < MAX_IMAGES:
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if end > len(data):
            raise BadInput(
                "malformed_tensors",
                f"Element {len(elements)} of inputs[0] ends at byte {end:,} by its length, but the tensor has "
                f"{len(data):,} bytes. Each element of BYTES stands behind its length, four bytes, little-endian.",
            )
        elements.append(bytes(data[start + 4 : end]))
        start = end
    if start < len(data) or len(elements) != count:
        more = "more than " if start < len(data) else ""
        raise BadInput(
            "shape_mismatch",
            f"inputs[0] has {count:,} elements of BYTES by its shape, but {more}{len(elements):,} came. Let the shape "
            "say what is sent.",
        )
    return elements


def write_elements(elements: Iterable[bytes]) -> bytes:
    """Join elements of BYTES, each behind its length; the inverse of `read_elements`."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def write_numbers(numbers: NDArray[np.generic], datatype: str) -> bytes:
    """Bring numbers to the bytes of their datatype, in C order."""
    return numbers.astype(NUMBER_TYPES[datatype], copy=False).tobytes()


def split_body(body: bytes | bytearray, header: str) -> tuple[memoryview, memoryview]:
    """Part a body into its JSON and the tensors behind it.

    Args:
        body: what came, decompressed.
        header: the value of Inference-Header-Content-Length, the length of the JSON in bytes.
    """
    length = int(header) if header.isascii() and header.isdigit() and len(header) < 16 else None
    if length is None or length > len(body):
        raise BadInput(
            "malformed_tensors",
            f"The header Inference-Header-Content-Length is {show(header)}, expected the length of the JSON at the "
            f"start of the body, at most its {len(body):,} bytes.",
        )
    view = memoryview(body)
    return view[:length], view[length:]
