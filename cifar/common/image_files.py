"""Image files of any format to the pixels that the service sees: for training data, and for what a client converts."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cifar.common.handler_modules import BadInput, costs_too_much, decode_picture, is_picture, to_model_input

# Pillow also reads formats that start other programs (EPS) or have no pixels of their own; images need neither.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Of the largest image that Pillow opens without a warning, 89 megapixels, uncompressed at 16 bits a channel.
MAX_FILE_BYTES = 600_000_000

_MAX_SENT_BYTES = 6_000_000  # TorchServe takes 6,553,500, what a form adds included
_BITS_PER_SAMPLE = 258  # TIFF's tag
_TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)


class UnreadableImage(Exception):
    """A file that is no image, or none that can be decoded without guessing; the message says why, without its name."""


def decode_image_file(content: bytes) -> NDArray[np.uint8]:
    """Decode a file to uint8 (32, 32, 3), RGB.

    PNG and JPEG take the server's own path. Other formats, and files too large to be sent, are opened here, and decoded
    by the same rules. A client that sends the result as PNG is answered for exactly these pixels.

    Raises:
        UnreadableImage: broken, of another format, an animation, of more than 89 megapixels, or of numbers without a
            known range (TIFF of floats or 32-bit integers).
    """
    if not _may_be_sent(content):
        return _decode_here(content)
    try:
        return decode_picture(content)
    except BadInput as rejection:
        if rejection.code in ("picture_too_large", "too_much_work"):  # as `costs_too_much`, without counting twice
            return _decode_here(content)
        if rejection.code == "unreadable_picture" and rejection.__cause__ is not None:
            raise UnreadableImage(f"cannot be read, truncated or broken: {_reason(rejection.__cause__)}") from rejection
        raise UnreadableImage(rejection.message) from rejection


def server_takes(content: bytes) -> bool:
    """Tell by kind, length and cost whether a file can be sent as it is; one that is broken can."""
    return _may_be_sent(content) and not costs_too_much(content)


def _may_be_sent(content: bytes) -> bool:
    return is_picture(content) and len(content) <= _MAX_SENT_BYTES


def _decode_here(content: bytes) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities, of EXIF blocks say, that do not spoil the image
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_meaning(image)
                return to_model_input(image)
    except UnreadableImage:
        raise
    except _TOO_LARGE:
        limit = f"{Image.MAX_IMAGE_PIXELS:,}" if Image.MAX_IMAGE_PIXELS else "the safe number of"
        raise UnreadableImage(f"more than {limit} pixels; reduce it first") from None
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image ({', '.join(FORMATS)})") from error
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, struct.error, zlib.error, …
        raise UnreadableImage(f"cannot be read, truncated or broken: {_reason(error)}") from error


def _check_meaning(image: Image.Image) -> None:
    """Reject what could only be guessed: which frame is meant, or which number is white."""
    frames = getattr(image, "n_frames", 1)
    # Telephones' JPEG files (Pillow calls them MPO) may hold previews as further frames; the first is the photograph.
    if frames > 1 and image.format not in ("JPEG", "MPO"):
        raise UnreadableImage(f"holds {frames} images; save the one that you mean by itself")
    kind = None
    if image.mode == "F":
        kind = "floats"
    elif image.mode == "I" and image.format != "PPM":  # Pillow brings deep PPM to 16 bits, in this mode
        kind = "32-bit integers"
    elif image.mode.startswith("I;16") and 12 in getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()):
        kind = "12-bit integers"
    if kind is not None:
        raise UnreadableImage(f"its pixels are {kind}, whose white is not known; save it with 8 or 16 bits a channel")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
