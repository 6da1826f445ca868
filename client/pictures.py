"""Turns the paths of a command line into what the server takes: pictures, and arrays of pixels."""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from client.errors import InputUnreadable
from client.inference import IMAGE_SHAPE, find_max_value, split_images

# Looked for in folders. A file that is named itself may be called anything: its content tells what it is.
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
ARRAY_SUFFIX = ".npy"

# Pillow also reads formats that start other programs (EPS) or have no pixels of their own; pictures need neither.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# MPO is what Pillow calls the JPEG of some telephones, with further pictures behind the photograph.
_SENT_AS_THEY_ARE = frozenset({"PNG", "JPEG", "MPO"})
# TorchServe takes 6,553,500 bytes, the handler 4096 × 4096 pixels. What is larger is reduced here, to a PNG that always
# fits: 1024 × 1024 pixels of at most 4 bytes.
_MAX_BODY_BYTES = 6_000_000
_MAX_PIXELS = 4096 * 4096
_MAX_SIDE_PIXELS = 1024


@dataclass(frozen=True)
class PictureFile:
    """A picture, not read before its turn comes: a folder of photographs may be larger than the memory."""

    name: str
    path: Path

    def read(self) -> bytes:
        """Return the bytes of a PNG or JPEG; other formats, and files too large to send, become a PNG.

        Raises:
            InputUnreadable: missing, forbidden, not a picture, or of absurdly many pixels.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # oddities, of EXIF blocks say, that do not spoil the picture
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                return _read_picture(self.path)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            limit = f"{Image.MAX_IMAGE_PIXELS:,}" if Image.MAX_IMAGE_PIXELS else "the safe number of"
            raise InputUnreadable(f"{self.path}: the picture has more than {limit} pixels; reduce it first") from error
        except UnidentifiedImageError as error:
            raise InputUnreadable(
                f"{self.path}: not a picture ({', '.join(_FORMATS)}) and not a {ARRAY_SUFFIX} array"
            ) from error
        except InputUnreadable:
            raise
        except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, struct.error, zlib.error, …
            raise InputUnreadable(f"{self.path}: cannot be read: {_say_why(error)}") from error


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images (N, 32, 32, 3), uint8 or float, a name for each, and the number that white has (None: not told yet)."""

    names: tuple[str, ...]
    images: NDArray[Any]
    max_value: int | None = None

    def split(self) -> Iterator["Pixels"]:
        """Cut into pieces that fit one request each and share one scale."""
        max_value = find_max_value(self.images)
        start = 0
        for piece in split_images(self.images):
            yield Pixels(self.names[start : start + len(piece)], piece, max_value)
            start += len(piece)


def list_files(path: Path) -> list[Path]:
    """Return the file itself, or the pictures and arrays in a folder and below it, sorted by name.

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
        raise InputUnreadable(f"{path}: the folder holds no pictures and no {ARRAY_SUFFIX} files")
    return files


def open_input(path: Path) -> PictureFile | Pixels:
    """Read an array; remember where a picture is.

    Raises:
        InputUnreadable: the array cannot be read or has the wrong shape or type.
    """
    return read_array(path) if path.suffix.lower() == ARRAY_SUFFIX else PictureFile(str(path), path)


def read_array(path: Path) -> Pixels:
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
        return Pixels((str(path),), array[np.newaxis])
    return Pixels(tuple(f"{path}[{index}]" for index in range(len(array))), array)


def _read_picture(path: Path) -> bytes:
    with Image.open(path, formats=_FORMATS) as image:
        fits = path.stat().st_size <= _MAX_BODY_BYTES and image.width * image.height <= _MAX_PIXELS
        if image.format in _SENT_AS_THEY_ARE and fits:
            return path.read_bytes()
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise InputUnreadable(f"{path}: holds {frames} pictures; save the one that you mean by itself")
        image.draft(None, (_MAX_SIDE_PIXELS, _MAX_SIDE_PIXELS))
        still = _keep_meaning(ImageOps.exif_transpose(image))
    still.thumbnail((_MAX_SIDE_PIXELS, _MAX_SIDE_PIXELS), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    still.save(encoded, format="PNG")
    return encoded.getvalue()


def _keep_meaning(image: Image.Image) -> Image.Image:
    """Return a copy in a mode that PNG has; what to lay transparency over is left to the server."""
    if image.mode.startswith("I;16"):
        # The upper byte, as the server does it: convert() would turn all above 255 of 65,535 white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


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
