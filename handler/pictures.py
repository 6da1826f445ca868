"""From image files to images: PNG and JPEG to arrays (32, 32, 3)."""

import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from bad_input import BadInput, show
from file_signatures import find_known_file
from image_files import JPEG_SIGNATURE, PNG_SIGNATURE, ImageFile, read_image_file

# Decoded, 64 MiB at four bytes a pixel; a telephone's 12 megapixels fit. Also what a request may cost: image_files.py
# says how many pixels a file's scans, chunks and deeper channels count as.
MAX_PIXELS = 4096 * 4096
# JPEG's own limit. Beyond it the resizing of an image of one row would take a gigabyte.
MAX_SIDE = 65_535

_SIZE = (32, 32)
# JPEG decodes at 1/2, 1/4 or 1/8 of its size for a fraction of the time. Never below this, so that the resizing to
# 32×32 still averages over 8×8 pixels or more.
_JPEG_DRAFT_SIZE = (256, 256)
# Sides of twice this and more are first brought near it by averaging whole pixels: the filter is slow for long sides.
_REDUCED_SIDE = 1024
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_picture(body: bytes | bytearray) -> bool:
    """Tell by the first bytes whether this is PNG or JPEG."""
    return body.startswith((PNG_SIGNATURE, JPEG_SIGNATURE))


def is_whole_picture(body: bytes | bytearray) -> bool:
    """Tell whether this is PNG or JPEG by more than the three bytes with which a raw image, too, may begin."""
    if not body.startswith(JPEG_SIGNATURE):
        return body.startswith(PNG_SIGNATURE)
    try:
        read_image_file(body)
    except ValueError:
        return False
    except BadInput:
        pass
    return True


def costs_too_much(body: bytes | bytearray) -> bool:
    """Tell whether `decode_picture` rejects an image for what decoding would cost; not one that is broken."""
    try:
        _check_cost(read_image_file(body), MAX_PIXELS)
    except BadInput as rejection:
        return rejection.code in ("picture_too_large", "too_much_work")
    except Exception:
        return False
    return False


def decode_picture(body: bytes | bytearray) -> NDArray[np.uint8]:
    """Turn one image into a model input; as `decode_counted`, which returns more."""
    return decode_counted(body, MAX_PIXELS)[0]


def decode_counted(body: bytes | bytearray, max_pixels: int) -> tuple[NDArray[np.uint8], int]:
    """Turn one image into a model input.

    What a viewer shows is what the model sees: the EXIF orientation is applied, transparency is laid over white,
    16-bit channels are brought to 8 bits. A size other than 32×32 is resized with antialiasing, not cropped.

    Args:
        body: PNG or JPEG; which of the two is inferred from its first bytes, whatever its content type says.
        max_pixels: what it may cost, in pixels of a usual PNG; what a request has left, where it holds several
            pictures.

    Returns:
        uint8 (32, 32, 3), RGB; and what decoding cost, at least the number of pixels.

    Raises:
        BadInput: another format, above `max_pixels`, animated, truncated or broken.
    """
    if not is_picture(body):
        known = find_known_file(body)
        what = f"is {known.name}" if known is not None else "is of no known kind"
        raise BadInput(
            "unsupported_picture",
            f"The image {what} (it begins with {show(bytes(body[:12]))}), expected PNG or JPEG. Convert it to one of "
            "them.",
        )
    try:
        file = read_image_file(body)
        _check_cost(file, max_pixels)
        return _decode(file), file.work
    except BadInput:
        raise
    except Exception as error:
        # Broken files make Pillow raise OSError, SyntaxError, ValueError, struct.error, zlib.error and others.
        raise BadInput(
            "unreadable_picture",
            f"The image of {len(body):,} bytes is truncated or broken ({_reason(error)}). Check that the whole "
            "file was sent, byte for byte: curl wants --data-binary or -T, not -d.",
        ) from error


def _check_cost(file: ImageFile, max_pixels: int) -> None:
    pixels = file.width * file.height
    if pixels > max_pixels or max(file.width, file.height) > MAX_SIDE:
        raise BadInput(
            "picture_too_large",
            f"The image has {file.width:,}×{file.height:,} = {pixels:,} pixels, at most {MAX_PIXELS:,} are taken, in "
            f"all images of a request together, and {MAX_SIDE:,} in a row or column. Shrink it first: the model sees "
            "32×32.",
        )
    if file.work > max_pixels:
        why = "its deep channels, rows or chunks" if file.kind == "PNG" else "its many scans or tables"
        raise BadInput(
            "too_much_work",
            f"The image of {file.width:,}×{file.height:,} pixels takes as long to decode as one of {file.work:,}, "
            f"for {why}; at most {MAX_PIXELS:,} are taken, in all images of a request together. Shrink it first: the "
            "model sees 32×32.",
        )


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # it prints the address of an object
        return "its header cannot be read"
    return show(re.sub(r"\bb(?=['\"])", "", str(error)))  # Pillow prints the names of chunks as b'IHDR'


def _decode(file: ImageFile) -> NDArray[np.uint8]:
    return to_model_input(Image.open(io.BytesIO(file.data), formats=(file.kind,)), file.orientation)


def to_model_input(image: Image.Image, orientation: int | None = None) -> NDArray[np.uint8]:
    """Decode an opened image to uint8 (32, 32, 3), RGB, by the rules of `decode_counted`.

    Training and client open further formats by themselves, within limits of their own; the pixels all come from here.
    An image that is broken makes Pillow raise nearly anything.

    Args:
        image: of any format.
        orientation: as Exif counts them, 1 to 8; None to ask Pillow for it.
    """
    image.draft(None, _JPEG_DRAFT_SIZE)
    image.load()
    turn = _TURNS.get(_orientation_of(image) if orientation is None else orientation)
    rgb = _to_rgb(image)
    factors = (max(1, rgb.width // _REDUCED_SIDE), max(1, rgb.height // _REDUCED_SIDE))
    if factors != (1, 1):
        rgb = rgb.reduce(factors)
    if turn is not None:
        rgb = rgb.transpose(turn)
    if rgb.size != _SIZE:
        rgb = rgb.resize(_SIZE, Image.Resampling.BICUBIC)  # Pillow widens the filter when it shrinks: antialiased
    return np.array(rgb, dtype=np.uint8)


def _orientation_of(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an EXIF block that cannot be read turns nothing
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_deep_grey(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Bring 16-bit greyscale to 8 bits by its upper byte, as Pillow does with 16-bit colour.

    `convert("RGB")` would clip: everything above 255 of 65,535 would turn white.
    """
    deep = np.asarray(image)
    grey = (deep >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[deep == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
