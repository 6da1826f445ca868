"""From multipart/form-data to images: one image or .npy array a field.

TorchServe takes the form apart. What it keeps of a field is its name and its content; file names are lost, and of
fields that share a name only the last content is left, at the place of the first.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bad_input import BadInput, show
from file_signatures import find_known_file
from npy import decode_npy, is_npy
from pictures import MAX_PIXELS, decode_counted, is_picture
from pixels import MAX_IMAGES, DecodedImages, Images, check_count
from request_options import OPTION_NAMES, RequestOptions

FORM_TYPE = "multipart/form-data"

# What a field takes at least beside its name, its content and the boundary, and what the end of the form takes.
_LEAST_PART_BYTES = len("--\r\ncontent-disposition:form-data;name=\r\n\r\n\r\n")
_LEAST_END_BYTES = len("----")
# Room for what the handler does not see of a field: its content type, 40 bytes with the header's name, its file name,
# and headers that some clients add. Two files of one name, each of 70 bytes, are then still found out.
_ROOM_IN_FORM, _ROOM_IN_PART = 50, 140
_MAX_FIELDS = MAX_IMAGES + len(OPTION_NAMES)


class Field(NamedTuple):
    """What the answer says of one field.

    Attributes:
        name: as it stands in the form.
        scaled: whether its numbers were taken as scaled to 0–1.
    """

    name: str
    scaled: bool


def option_fields(fields: Mapping[str, object]) -> dict[str, str]:
    """Pick the fields top_k and max_value, as text."""
    return {name: _text(fields[name]) for name in OPTION_NAMES if name in fields}


def check_form(fields: Mapping[str, object], content_type: str, length: int | None) -> None:
    """Reject a form that TorchServe could not take apart, or of which it has dropped something.

    Several fields of one name, as `curl -F image=@a.png -F image=@b.png` sends them, cannot be seen in `fields`. They
    are found by the length of the body: it is compared with what a form of these fields takes. What is dropped from a
    body without Content-Length, or beside JSON, is not noticed.

    Args:
        fields: name to content.
        content_type: the header, with its parameters.
        length: the header Content-Length, in bytes; None where there was none.
    """
    if "boundary=" not in content_type.lower() or not fields:
        raise BadInput(
            "malformed_form",
            f"The form cannot be taken apart: {'its boundary is missing' if fields else 'no field was found'}. Let "
            "the client write the header Content-Type, for it names the boundary: curl -F cat=@cat.png; in Python, "
            "requests.post(url, files=…).",
        )
    if len(fields) > _MAX_FIELDS:
        check_count(len(fields))
    sizes = [_size(content) for content in fields.values()]
    if length is None or None in sizes:
        return
    boundary = content_type[content_type.lower().index("boundary=") + len("boundary=") :].partition(";")[0].strip(' "')
    arrived = sum(size for size in sizes if size is not None)
    names = sum(len(name.encode("utf-8", "replace")) for name in fields)
    least = len(fields) * (_LEAST_PART_BYTES + len(boundary)) + names + arrived + len(boundary) + _LEAST_END_BYTES
    if length > least + _ROOM_IN_FORM + _ROOM_IN_PART * len(fields):
        raise BadInput(
            "repeated_field",
            f"The form has {length:,} bytes, but its {len(fields)} fields with {arrived:,} bytes of content take "
            f"{least:,}: of several fields with one name, TorchServe keeps the last. Give each image a name of its "
            "own; if each has one, shorten the file names.",
        )


def _size(content: object) -> int | None:
    """Return how many bytes the content had; None for JSON, which the server has parsed."""
    if isinstance(content, str):
        return len(content.encode("utf-8", "replace"))
    return len(content) if isinstance(content, (bytes, bytearray)) else None


def decode_fields(fields: Mapping[str, object], options: RequestOptions) -> tuple[Images, tuple[Field, ...]]:
    """Read every field that is no option; one that cannot be read rejects the whole form, and is named.

    Returns:
        The images, one a field, in the order of the fields; and what the fields were.
    """
    contents = {name: content for name, content in fields.items() if name not in OPTION_NAMES}
    if not contents:
        raise BadInput("no_images", "The form has options but no image, expected 1 to 256 fields with one image each.")
    check_count(len(contents))
    left = MAX_PIXELS  # all images of a request together take no longer than one may
    decoded = []
    for name, content in contents.items():
        try:
            pixels, spent = _decode_field(content, options, left)
        except BadInput as rejection:
            raise BadInput(rejection.code, f"The field {show(name)} is rejected. {rejection.message}") from None
        left -= spent
        decoded.append(pixels)
    images: NDArray[np.uint8] | NDArray[np.float32] = np.concatenate([pixels.images for pixels in decoded])
    return images, tuple(Field(name, pixels.scaled) for name, pixels in zip(contents, decoded, strict=True))


def _decode_field(content: object, options: RequestOptions, max_pixels: int) -> tuple[DecodedImages, int]:
    """Return one image and how many pixels were decoded for it."""
    if not isinstance(content, (bytes, bytearray)):  # TorchServe parses fields of the types JSON and text
        came = "text" if isinstance(content, str) else "JSON"
        raise BadInput(
            "wrong_field",
            f"It is {came} ({show(content)}), expected an image file (PNG, JPEG) or an .npy array. JSON is a body of "
            "its own, with Content-Type: application/json.",
        )
    if not content:
        raise BadInput("empty_field", "It is empty, expected an image file (PNG, JPEG) or an .npy array.")
    if is_npy(content):
        pixels, _many = decode_npy(content, options.max_value)
        if len(pixels.images) != 1:
            raise BadInput(
                "wrong_shape",
                f"Its array holds {len(pixels.images)} images, expected one, 32×32×3: a field has one answer. Send "
                "several as a body of their own, with Content-Type: application/x-npy.",
            )
        if options.max_value == 1 and not pixels.scaled:
            raise _not_scaled()
        return pixels, 0
    if not is_picture(content):
        known = find_known_file(content)
        what = f"is {known.name}" if known is not None else f"begins with {show(bytes(content[:12]))}"
        raise BadInput(
            "wrong_field",
            f"It {what}, expected an image file (PNG, JPEG) or an .npy array. Options are "
            f"named {' and '.join(OPTION_NAMES)}.",
        )
    if options.max_value == 1:
        raise _not_scaled()
    image, spent = decode_counted(content, max_pixels)
    return DecodedImages(image[None], scaled=False), spent


def _not_scaled() -> BadInput:
    return BadInput(
        "wrong_max_value", "max_value is 1, but its pixels are whole numbers in 0–255. Leave max_value out."
    )


def _text(content: object) -> str:
    if isinstance(content, (bytes, bytearray)):
        return content.decode("utf-8", "replace")
    return content if isinstance(content, str) else show(content)
