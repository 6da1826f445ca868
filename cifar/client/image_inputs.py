"""Turns the paths of a command line into what the server takes: images, and arrays of pixels."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar.client.inference import find_max_value, split_images
from cifar.common.errors import InputUnreadable
from cifar.common.image_files import MAX_FILE_BYTES, UnreadableImage, decode_image_file, server_takes
from cifar.common.project import IMAGE_SHAPE

# Looked for in folders. A file that is named itself may be called anything: its type is inferred from its content.
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
ARRAY_SUFFIX = ".npy"


@dataclass(frozen=True)
class ImageFile:
    """An image, not read before its turn comes: a folder of photographs may be larger than the memory."""

    name: str
    path: Path

    def read(self) -> bytes:
        """Return the bytes of a PNG or JPEG; other formats, and files too large to send, become a PNG of 32×32.

        Its pixels are those that the server's own code makes of the file.

        Raises:
            InputUnreadable: missing, forbidden, not an image, or of absurdly many pixels.
        """
        try:
            with self.path.open("rb") as file:
                too_large = self.path.stat().st_size > MAX_FILE_BYTES
                content = b"" if too_large else file.read(MAX_FILE_BYTES + 1)  # a pipe has no size
            if too_large or len(content) > MAX_FILE_BYTES:
                raise InputUnreadable(f"{self.path}: more than {MAX_FILE_BYTES:,} bytes; reduce it first")
            return content if server_takes(content) else _encode_png(decode_image_file(content))
        except OSError as error:
            raise InputUnreadable(f"{self.path}: cannot be read: {_say_why(error)}") from error
        except UnreadableImage as error:
            raise InputUnreadable(f"{self.path}: {error}") from error


@dataclass(frozen=True, eq=False)
class ImageArray:
    """Images (N, 32, 32, 3), uint8 or float, a name for each, and the number that white has (None: not told yet)."""

    names: tuple[str, ...]
    images: NDArray[Any]
    max_value: int | None = None

    def split(self) -> Iterator["ImageArray"]:
        """Cut into pieces that fit one request each and share one scale."""
        max_value = find_max_value(self.images)
        start = 0
        for piece in split_images(self.images):
            yield ImageArray(self.names[start : start + len(piece)], piece, max_value)
            start += len(piece)


def list_files(path: Path) -> list[Path]:
    """Return the file itself, or the images and arrays in a folder and below it, sorted by name.

    Raises:
        InputUnreadable: nothing is there, or the folder holds none.
    """
    if not path.is_dir():
        if not path.exists():
            raise InputUnreadable(f"{path}: no such file or folder")
        return [path]
    wanted = PICTURE_SUFFIXES | {ARRAY_SUFFIX}
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in wanted and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise InputUnreadable(f"{path}: the folder holds no images and no {ARRAY_SUFFIX} files")
    return files


def open_input(path: Path) -> ImageFile | ImageArray:
    """Read an array; remember where an image is.

    Raises:
        InputUnreadable: the array cannot be read or has the wrong shape or type.
    """
    return read_array(path) if path.suffix.lower() == ARRAY_SUFFIX else ImageFile(str(path), path)


def read_array(path: Path) -> ImageArray:
    """Read a .npy file of one image (32, 32, 3) or many (N, 32, 32, 3), uint8 or float.

    Raises:
        InputUnreadable: no array, pickled objects (never loaded: they can run code), wrong shape or type.
    """
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise InputUnreadable(f"{path}: not an array that can be read safely: {_say_why(error)}") from error
    _check_shape(path, array.shape)
    _check_numbers(path, array)
    if array.shape == IMAGE_SHAPE:
        return ImageArray((str(path),), array[np.newaxis])
    return ImageArray(tuple(f"{path}[{index}]" for index in range(len(array))), array)


def _encode_png(image: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG")
    return encoded.getvalue()


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if shape == IMAGE_SHAPE or (shape[1:] == IMAGE_SHAPE and shape[0] > 0):
        return
    advice = ""
    if shape[-3:] == (3, 32, 32):
        axes = "(1, 2, 0)" if len(shape) == 3 else "(0, 2, 3, 1)"
        advice = f"; its channels come first, `array.transpose{axes}` moves them last"
    raise InputUnreadable(f"{path}: shape {shape}, expected (32, 32, 3) or (N, 32, 32, 3){advice}")


def _check_numbers(path: Path, array: NDArray[Any]) -> None:
    if array.dtype == np.uint8:
        return
    if not np.issubdtype(array.dtype, np.floating):
        raise InputUnreadable(f"{path}: numbers of type {array.dtype}, expected uint8 (0–255) or float (0–255 or 0–1)")
    # JSON has no word for these: they would reach the server as null.
    if not np.isfinite(array).all():
        raise InputUnreadable(f"{path}: holds numbers that are not finite (NaN or infinity)")


def _say_why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which the sentence already names
    return str(error) or type(error).__name__
