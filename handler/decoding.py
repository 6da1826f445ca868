"""Request body to images, or BadInput. Knows HTTP bodies and numpy, but neither TorchServe nor torch.

Each kind of body is one function in `_DECODERS`: (body, query) to DecodedRequest. Forms, which the server takes apart,
have a function of their own, `decode_form`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bad_input import BadInput, show
from body_headers import check_form_headers
from embedded_images import decode_embedded_image, decode_embedded_images, holds_image_files
from forms import FORM_TYPE, Field, check_form, decode_fields, option_fields
from inference_protocol import OpenInferenceReply, decode_open_inference
from npy import decode_npy, is_npy
from pictures import JPEG_SIGNATURE, PNG_SIGNATURE, decode_picture, is_picture
from pixels import IMAGE_LENGTH, MAX_IMAGES, Images, Pixels, decode_bare_list, decode_image, decode_images, decode_raw
from request_options import OPTION_NAMES, Options, asks_for_nothing, join_query_and_headers, read_options
from tensors import split_body

__all__ = ["BadInput", "DecodedRequest", "decode_form", "decode_request", "is_form", "only_part"]

_LIST_KEYS = ("images", "instances")  # the second is KServe V1's name
_FILE_KEYS = ("b64", "data", "image_bytes")  # as TensorFlow Serving's and KServe's users call one image file
_IMAGE_KEYS = ("image", *_LIST_KEYS, *_FILE_KEYS)
_SIGNATURE_KEY = "signature_name"  # TensorFlow Serving's, beside instances; this model has one signature
_OPEN_INFERENCE_KEY = "inputs"  # KServe V2
BODY_KINDS = (
    "application/json",
    "application/octet-stream",
    "application/x-npy",
    "image/png",
    "image/jpeg",
    FORM_TYPE,
)
_TAKEN = f"{', '.join(BODY_KINDS[:-1])} or {BODY_KINDS[-1]}"


@dataclass(frozen=True, eq=False)
class DecodedRequest:
    """One request, ready for the network.

    Attributes:
        images: uint8, or float32 in 0–255, (N, 32, 32, 3), N from 1 to 256.
        many: whether the answer is a list, {"predictions": […]}.
        top_k: how many labels to report, 1 to 10; None where nobody asked.
        max_value: 1 where the numbers were taken as scaled to 0–1, whether told or by themselves; the answer says so.
        fields: of a form, in the order of the images; None for any other body.
        open_inference: what an answer in the Open Inference Protocol must repeat; None for any other body.
    """

    images: Images
    many: bool
    top_k: int | None
    max_value: int | None
    fields: tuple[Field, ...] | None = None
    open_inference: OpenInferenceReply | None = None


def decode_request(
    body: object, content_type: str | None, query: Mapping[str, str], json_length: str | None = None
) -> DecodedRequest:
    """Read one request.

    Args:
        body: bytes; or, for JSON, what the server has already parsed. TorchServe parses JSON, and hands on what it
            could not parse as bytes.
        content_type: the header as it came, with parameters and in any case; None or empty where there was none.
        query: options beside the body, as text.
        json_length: the header Inference-Header-Content-Length, with which binary tensors follow the JSON; None where
            there was none.

    Raises:
        BadInput: anything that cannot be answered; nothing else is raised, whatever came.
    """
    if json_length is not None:
        return _decode_with_tensors(body, json_length, query)
    media_type = _media_type(content_type)
    if not media_type:
        return _decode_untyped(body, query)
    decode = _DECODERS.get(media_type)
    if decode is None:
        raise _unsupported(media_type)
    return decode(body, query)


def only_part(parts: Mapping[str, object]) -> object:
    """Return the body of a request that names its parts, as gRPC does: the only one that is no option, of any name."""
    names = [name for name in parts if name not in OPTION_NAMES]
    if len(names) > 1:
        shown = ", ".join(show(name) for name in names[:5])
        raise BadInput(
            "wrong_inputs",
            f"The request has {len(names):,} inputs ({shown}), expected one, which may have any name, beside the "
            f"options {' and '.join(OPTION_NAMES)}. Several images go into one input.",
        )
    return parts[names[0]] if names else b""


def is_form(content_type: str | None) -> bool:
    """Tell whether `decode_form` is the function for this request."""
    return _media_type(content_type) == FORM_TYPE


def decode_form(fields: Mapping[str, object], headers: Mapping[str, str]) -> DecodedRequest:
    """Read one form: each field a picture or an .npy array, save those named top_k and max_value.

    Args:
        fields: name to content, in the order of the form: bytes, or what the server has made of JSON and text.
        headers: the request's, with names in lower case; options may stand there too.

    Raises:
        BadInput: anything that cannot be answered; one bad field refuses the form.
    """
    length = headers.get("content-length", "")
    is_number = length.isascii() and length.isdigit() and len(length) < 16
    check_form_headers(headers)
    check_form(fields, headers.get("content-type", ""), int(length) if is_number else None)
    options = read_options({}, join_query_and_headers(option_fields(fields), headers, "the field"))
    images, described = decode_fields(fields, options)
    return DecodedRequest(images, True, options.top_k, None, fields=described)


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _decode_untyped(body: object, query: Mapping[str, str]) -> DecodedRequest:
    """Tell the kind of a body without content type, as `curl -T cat.png` sends it, by its first bytes or its length."""
    if not isinstance(body, (bytes, bytearray)):
        return _decode_json(body, query)
    # A raw image may begin like a JPEG, one in 16 million; a truncated JPEG of a fitting length is likelier.
    if is_picture(body):
        return _decode_picture(body, query)
    if is_npy(body):
        return _decode_npy(body, query)
    fits_raw = len(body) > 0 and len(body) % IMAGE_LENGTH == 0
    if body.lstrip()[:1] in (b"{", b"["):
        try:
            parsed = _parse_json(body)
        except BadInput:
            if not fits_raw:  # else a raw image whose first pixel happens to be a brace
                raise
        else:
            return _decode_json(parsed, query)
    if fits_raw or not body:
        return _decode_raw(body, query)
    raise BadInput(
        "unrecognised_body",
        f"The body of {len(body):,} bytes came without Content-Type and begins with {show(bytes(body[:12]))}: not "
        f"JSON, PNG, JPEG or .npy, nor N × {IMAGE_LENGTH:,} raw bytes. Add the header Content-Type: {_TAKEN}.",
    )


def _decode_json(body: object, query: Mapping[str, str]) -> DecodedRequest:
    value = _parse_json(body) if isinstance(body, (bytes, bytearray)) else body
    if type(value) is dict:
        return _decode_object(value, query)
    if type(value) is list:
        options = read_options({}, query)
        if len(value) <= MAX_IMAGES and holds_image_files(value):
            return _request(decode_embedded_images(value, "the list", options.max_value), True, options)
        pixels, many = decode_bare_list(value, options.max_value)
        return _request(pixels, many, options)
    raise BadInput(
        "wrong_json",
        f'The JSON body is {show(value)}, expected an object like {{"image": […]}}, or a list of 3,072 numbers.',
    )


def _decode_object(value: dict[str, Any], query: Mapping[str, str]) -> DecodedRequest:
    key = _image_key(value)
    if key == _OPEN_INFERENCE_KEY:
        return _decode_open_inference(value, None, query)
    options = read_options(value, query)
    many = key in _LIST_KEYS
    return _request(_decode_value(value[key], key, options.max_value), many, options)


def _decode_value(value: object, key: str, max_value: int | None) -> Pixels:
    if key not in _LIST_KEYS:
        return (decode_embedded_image if type(value) in (str, dict) else decode_image)(value, key, max_value)
    if type(value) is list and holds_image_files(value):
        return decode_embedded_images(value, key, max_value)
    return decode_images(value, key, max_value)


def _decode_with_tensors(body: object, json_length: str, query: Mapping[str, str]) -> DecodedRequest:
    try:
        tail = memoryview(b"")
        if isinstance(body, (bytes, bytearray)):
            document, tail = split_body(body, json_length)
            body = _parse_json(bytes(document))
        if type(body) is not dict or _OPEN_INFERENCE_KEY not in body:
            raise BadInput(
                "wrong_inputs",
                f"The header Inference-Header-Content-Length came, but the JSON is {show(body)}, expected an object "
                'with "inputs", as the Open Inference Protocol has it.',
            )
    except BadInput as rejection:
        rejection.open_inference = True
        raise
    return _decode_open_inference(body, tail, query)


def _decode_open_inference(value: dict[str, Any], tail: memoryview | None, query: Mapping[str, str]) -> DecodedRequest:
    try:
        pixels, options, reply = decode_open_inference(value, tail, query)
    except BadInput as rejection:
        rejection.open_inference = True
        raise
    return DecodedRequest(pixels.images, True, options.top_k, 1 if pixels.scaled else None, open_inference=reply)


def _image_key(value: dict[str, Any]) -> str:
    found = [key for key in (*_IMAGE_KEYS, _OPEN_INFERENCE_KEY) if key in value]
    if len(found) > 1:
        found = [key for key in found if not asks_for_nothing(value[key])] or found
    if not found:
        keys = ", ".join(show(key) for key in list(value)[:5]) or "none"
        raise BadInput(
            "missing_image",
            f'The JSON object has no image: its keys are {keys}. Send one image under "image", or '
            'a list under "images".',
        )
    if len(found) > 1:
        raise BadInput(
            "two_image_keys",
            f"The JSON object has {' and '.join(found)}, and only one of them can be answered. Leave one out.",
        )
    if found == [_OPEN_INFERENCE_KEY]:
        return _OPEN_INFERENCE_KEY  # has keys of its own beside it
    unknown = [
        key
        for key in value
        if key not in (*_IMAGE_KEYS, *OPTION_NAMES) and not asks_for_nothing(value[key]) and key != _SIGNATURE_KEY
    ]
    if unknown:
        raise BadInput(
            "unknown_key",
            f"The JSON object has the key {show(unknown[0])}, which is not known. Beside {found[0]!r} there may be "
            f"{' and '.join(OPTION_NAMES)}.",
        )
    return found[0]


def _parse_json(body: bytes | bytearray) -> object:
    if not body.strip():
        raise _empty()
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        where = f"at line {error.lineno}, column {error.colno} (character {error.pos:,} of {len(error.doc):,})"
        reason = f"{error.msg} {where}"
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 at byte {error.start:,}"
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:  # a whole number of more digits than Python reads
        reason = str(error)
    raise BadInput(
        "malformed_json",
        f"The body is not JSON: {reason}. It begins with {show(bytes(body[:20]))}. "
        "Send it whole; for raw bytes the header is Content-Type: application/octet-stream.",
    )


def _decode_raw(body: object, query: Mapping[str, str]) -> DecodedRequest:
    data = _as_bytes(body)
    if data.startswith(PNG_SIGNATURE) or (data.startswith(JPEG_SIGNATURE) and data.endswith(b"\xff\xd9")):
        raise BadInput(
            "picture_as_raw",
            "The body is a PNG or JPEG file but came as application/octet-stream, which means raw pixels. "
            "Send it with Content-Type image/png or image/jpeg.",
        )
    if is_npy(data):
        raise BadInput(
            "npy_as_raw",
            "The body is an .npy file but came as application/octet-stream, which means raw pixels. Send it with "
            "Content-Type: application/x-npy.",
        )
    options = read_options({}, query)
    _refuse_scale(options, "Raw bytes")
    images = decode_raw(data)
    return _request(Pixels(images, scaled=False), len(images) > 1, options)


def _decode_picture(body: object, query: Mapping[str, str]) -> DecodedRequest:
    data = _as_bytes(body)
    options = read_options({}, query)
    _refuse_scale(options, "The pixels of a picture file")
    return _request(Pixels(decode_picture(data)[None], scaled=False), False, options)


def _decode_npy(body: object, query: Mapping[str, str]) -> DecodedRequest:
    data = _as_bytes(body)
    options = read_options({}, query)
    pixels, many = decode_npy(data, options.max_value)
    if not pixels.scaled:
        _refuse_scale(options, "The numbers of a uint8 array")
    return _request(pixels, many, options)


def _request(pixels: Pixels, many: bool, options: Options) -> DecodedRequest:
    return DecodedRequest(pixels.images, many, options.top_k, 1 if pixels.scaled else None)


def _as_bytes(body: object) -> bytes | bytearray:
    if not isinstance(body, (bytes, bytearray)) or not body:
        raise _empty()
    return body


def _refuse_scale(options: Options, what: str) -> None:
    if options.max_value == 1:
        raise BadInput(
            "wrong_max_value",
            f"max_value is 1, but {what[0].lower()}{what[1:]} are whole numbers in 0–255. Leave max_value out; it is "
            "for numbers in JSON and for arrays of floats.",
        )


def _empty() -> BadInput:
    return BadInput("empty_body", f"The body is empty, expected an image. Send it with Content-Type {_TAKEN}.")


def _refuse_form(body: object, query: Mapping[str, str]) -> DecodedRequest:
    raise BadInput(
        "form_body",
        "The body came as application/x-www-form-urlencoded, which `curl -d` adds by itself. Add the header "
        "Content-Type: application/json for JSON; for a picture use curl --data-binary @cat.png with "
        "Content-Type: image/png.",
    )


def _unsupported(media_type: str) -> BadInput:
    code = "unsupported_picture" if media_type.startswith("image/") else "unsupported_type"
    return BadInput(code, f"The Content-Type is {show(media_type)}, expected {_TAKEN}.")


_DECODERS: Mapping[str, Callable[[object, Mapping[str, str]], DecodedRequest]] = {
    "application/json": _decode_json,
    "application/octet-stream": _decode_raw,
    "application/x-npy": _decode_npy,
    "image/png": _decode_picture,
    "image/jpeg": _decode_picture,
    "image/jpg": _decode_picture,  # no registered name, but a common one
    "application/x-www-form-urlencoded": _refuse_form,
}
