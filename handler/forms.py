"""From multipart/form-data to images: one picture or .npy array a field.

TorchServe takes the form apart. What it keeps of a field is its name and its content; file names are lost, and of
fields that share a name only the last content is left, at the place of the first.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bad_input import BadInput, show
from npy import decode_npy, is_npy
from pictures import MAX_PIXELS, decode_counted, is_picture
from pixels import Images, Pixels, check_count
from request_options import OPTION_NAMES, Options

FORM_TYPE = "multipart/form-data"

# What a field costs beside its content: boundary, name, file name, content type. curl needs 150 to 200 bytes.
_MAX_FIELD_OVERHEAD_BYTES = 1024


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
    """Refuse a form that TorchServe could not take apart, or of which it has dropped something.

    Several fields of one name, as `curl -F image=@a.png -F image=@b.png` sends them, cannot be seen in `fields`. They
    are told by the length of the body, where so much of it is missing that no name and no boundary explains it. What is
    dropped in small pieces, or from a body without Content-Length, is not noticed.

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
    contents = [value for value in fields.values() if isinstance(value, (bytes, bytearray))]
    if length is None or len(contents) < len(fields):  # what the server has parsed has no known length any more
        return
    unexplained = length - sum(map(len, contents)) - sum(len(name.encode()) for name in fields)
    if unexplained > _MAX_FIELD_OVERHEAD_BYTES * (len(fields) + 1):
        raise BadInput(
            "repeated_field",
            f"The form has {length:,} bytes, but only {sum(map(len, contents)):,} arrived in {len(fields)} fields: of "
            "several fields with one name, TorchServe keeps the last. Give each picture a name of its own.",
        )


def decode_fields(fields: Mapping[str, object], options: Options) -> tuple[Images, tuple[Field, ...]]:
    """Read every field that is no option; one that cannot be read refuses the whole form, and is named.

    Returns:
        The images, one a field, in the order of the fields; and what the fields were.
    """
    contents = {name: content for name, content in fields.items() if name not in OPTION_NAMES}
    if not contents:
        raise BadInput(
            "no_images", "The form has options but no picture, expected 1 to 256 fields with one picture each."
        )
    check_count(len(contents))
    left = MAX_PIXELS  # all pictures of a request together take no longer than one may
    decoded = []
    for name, content in contents.items():
        try:
            pixels, spent = _decode_field(content, options, left)
        except BadInput as refusal:
            raise BadInput(refusal.code, f"The field {show(name)} is refused. {refusal.message}") from None
        left -= spent
        decoded.append(pixels)
    images: NDArray[np.uint8] | NDArray[np.float32] = np.concatenate([pixels.images for pixels in decoded])
    return images, tuple(Field(name, pixels.scaled) for name, pixels in zip(contents, decoded, strict=True))


def _decode_field(content: object, options: Options, max_pixels: int) -> tuple[Pixels, int]:
    """Return one image and how many pixels were decoded for it."""
    if not isinstance(content, (bytes, bytearray)):  # TorchServe parses fields of the types JSON and text
        came = "text" if isinstance(content, str) else "JSON"
        raise BadInput(
            "wrong_field",
            f"It is {came} ({show(content)}), expected a picture (PNG, JPEG) or an .npy array. JSON is a body of its "
            "own, with Content-Type: application/json.",
        )
    if not content:
        raise BadInput("empty_field", "It is empty, expected a picture (PNG, JPEG) or an .npy array.")
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
        raise BadInput(
            "wrong_field",
            f"It begins with {show(bytes(content[:12]))}, expected a picture (PNG, JPEG) or an .npy array. Options are "
            f"named {' and '.join(OPTION_NAMES)}.",
        )
    if options.max_value == 1:
        raise _not_scaled()
    image, spent = decode_counted(content, max_pixels)
    return Pixels(image[None], scaled=False), spent


def _not_scaled() -> BadInput:
    return BadInput(
        "wrong_max_value", "max_value is 1, but its pixels are whole numbers in 0–255. Leave max_value out."
    )


def _text(content: object) -> str:
    if isinstance(content, (bytes, bytearray)):
        return content.decode("utf-8", "replace")
    return content if isinstance(content, str) else show(content)
