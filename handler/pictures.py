"""From picture files to images: PNG and JPEG to arrays (32, 32, 3)."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from bad_input import BadInput, show

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
MAX_PIXELS = 4096 * 4096  # decoded, 64 MiB at four bytes a pixel; a telephone's 12 megapixels fit

_SIZE = (32, 32)
# JPEG decodes at 1/2, 1/4 or 1/8 of its size for a fraction of the time. Never below this, so that the resizing to
# 32×32 still averages over 8×8 pixels or more.
_JPEG_DRAFT_SIZE = (256, 256)
_TOO_LARGE_WARNINGS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


def is_picture(body: bytes | bytearray) -> bool:
    """Tell by the first bytes whether this is PNG or JPEG."""
    return body.startswith((PNG_SIGNATURE, JPEG_SIGNATURE))


def decode_picture(body: bytes | bytearray) -> NDArray[np.uint8]:
    """Turn one picture into a model input; as `decode_counted`, which tells more."""
    return decode_counted(body, MAX_PIXELS)[0]


def decode_counted(body: bytes | bytearray, max_pixels: int) -> tuple[NDArray[np.uint8], int]:
    """Turn one picture into a model input.

    What a viewer shows is what the model sees: the EXIF orientation is applied, transparency is laid over white,
    16-bit channels are brought to 8 bits. A size other than 32×32 is resized with antialiasing, not cropped.

    Args:
        body: PNG or JPEG; which of the two is told by its first bytes, whatever its content type says.
        max_pixels: how many it may have; what a request has left, where it holds several pictures.

    Returns:
        uint8 (32, 32, 3), RGB; and how many pixels the picture had, which is what decoding costs.

    Raises:
        BadInput: another format, above `max_pixels`, animated, truncated or broken.
    """
    if not is_picture(body):
        raise BadInput(
            "unsupported_picture",
            f"The picture begins with {show(bytes(body[:12]))}, which is neither PNG nor JPEG. Convert it to "
            "one of them.",
        )
    try:
        with warnings.catch_warnings():
            # Pillow warns of oddities (a broken EXIF block, say) that do not spoil the picture.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(io.BytesIO(body), max_pixels)
    except BadInput:
        raise
    except _TOO_LARGE_WARNINGS:
        raise _too_large("more than Pillow agrees to open") from None
    except Exception as error:
        # Broken files make Pillow raise OSError, SyntaxError, ValueError, struct.error, zlib.error and others.
        raise BadInput(
            "unreadable_picture",
            f"The picture of {len(body):,} bytes is truncated or broken ({show(str(error))}). Check that the whole "
            "file was sent, byte for byte: curl wants --data-binary or -T, not -d.",
        ) from error


def _decode(file: io.BytesIO, max_pixels: int) -> tuple[NDArray[np.uint8], int]:
    picture: Image.Image = Image.open(file, formats=("PNG", "JPEG"))
    pixels = picture.width * picture.height
    if pixels > max_pixels:
        # Known from the header, before anything is decoded.
        raise _too_large(f"{picture.width:,}×{picture.height:,} = {pixels:,} pixels")
    # Only PNG: telephones' JPEG files may hold previews as further frames, and the first is the photograph.
    frames = getattr(picture, "n_frames", 1) if picture.format == "PNG" else 1
    if frames > 1:
        raise BadInput(
            "animated_picture",
            f"The picture is an animation of {frames} frames, expected a still one. Send the frame that you mean.",
        )
    return to_model_input(picture), pixels


def to_model_input(picture: Image.Image) -> NDArray[np.uint8]:
    """Decode an opened picture to uint8 (32, 32, 3), RGB, by the rules of `decode_counted`.

    Training and client open further formats by themselves, within limits of their own; the pixels all come from here.
    A picture that is broken makes Pillow raise nearly anything.
    """
    picture.draft(None, _JPEG_DRAFT_SIZE)
    rgb = _to_rgb(_turn_upright(picture))
    if rgb.size != _SIZE:
        rgb = rgb.resize(_SIZE, Image.Resampling.BICUBIC)  # Pillow widens the filter when it shrinks: antialiased
    return np.array(rgb, dtype=np.uint8)


def _turn_upright(picture: Image.Image) -> Image.Image:
    picture.load()  # outside the try: what breaks here is the picture, not its EXIF block
    try:
        if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return picture  # exif_transpose would copy it
        return ImageOps.exif_transpose(picture)
    except Exception:  # an EXIF block that cannot be read turns nothing
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return _from_deep_grey(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _from_deep_grey(picture: Image.Image) -> Image.Image:
    """Bring 16-bit greyscale to 8 bits by its upper byte, as Pillow does with 16-bit colour.

    `convert("RGB")` would clip: everything above 255 of 65,535 would turn white.
    """
    deep = np.asarray(picture)
    grey = (deep >> 8).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if transparent is not None:
        grey[deep == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _too_large(what: str) -> BadInput:
    return BadInput(
        "picture_too_large",
        f"The picture has {what}, at most {MAX_PIXELS:,} are taken, in all pictures of a request together. Shrink it "
        "first: the model sees 32×32.",
    )
