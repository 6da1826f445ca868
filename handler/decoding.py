"""Request body to images, or BadInput. Knows HTTP bodies and numpy, but neither TorchServe nor torch.

Each kind of body is one function in `_DECODERS`: (body, query) to DecodedRequest. Forms, which the server takes apart,
have a function of their own, `decode_form`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bad_input import BadInput, show
from body_headers import check_form_headers
from embedded_images import decode_embedded_image, decode_embedded_images, holds_image_files
from file_signatures import find_known_file
from forms import FORM_TYPE, Field, check_form, decode_fields, option_fields
from inference_protocol import OpenInferenceReply, decode_open_inference
from json_body import begins_like_json, parse_json
from npy import decode_npy, is_npy
from number_bytes import find_number_type
from pictures import decode_picture, is_picture, is_whole_picture
from pixels import (
    IMAGE_LENGTH,
    MAX_IMAGES,
    DecodedImages,
    Images,
    decode_bare_list,
    decode_image,
    decode_images,
    decode_raw,
)
from request_options import OPTION_NAMES, RequestOptions, asks_for_nothing, join_query_and_headers, read_options
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
        top_k: how many labels to report, 1 to 10; None where the request does not ask.
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
        raise _unsupported(media_type, body)
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
    """Read one form: each field an image or an .npy array, save those named top_k and max_value.

    Args:
        fields: name to content, in the order of the form: bytes, or what the server has made of JSON and text.
        headers: the request's, with names in lower case; options may stand there too.

    Raises:
        BadInput: anything that cannot be answered; one bad field rejects the form.
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
    if begins_like_json(body):
        try:
            parsed = _parse_json(body)
        except BadInput:
            if not fits_raw:  # else a raw image whose first pixel happens to be a brace
                raise
        else:
            return _decode_json(parsed, query)
    if fits_raw or not body:
        return _decode_raw(body, query)
    _reject_known_file(body)
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


def _decode_value(value: object, key: str, max_value: int | None) -> DecodedImages:
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
    return parse_json(body)


def _decode_raw(body: object, query: Mapping[str, str]) -> DecodedRequest:
    data = _as_bytes(body)
    _reject_files_as_raw(data)
    options = read_options({}, query)
    _reject_scale(options, "Raw bytes")
    images = decode_raw(data)
    numbers = find_number_type(data)
    if numbers is not None:
        raise BadInput(
            "numbers_as_raw",
            f"The body of {len(data):,} bytes holds numbers of the type {numbers}, expected raw pixels of one byte "
            f"each, uint8: it would be taken for {len(images)} images. Send whole numbers in 0–255, "
            "images.astype(numpy.uint8).tobytes(); or floats by numpy.save, with Content-Type: application/x-npy.",
        )
    return _request(DecodedImages(images, scaled=False), len(images) > 1, options)


def _reject_files_as_raw(data: bytes | bytearray) -> None:
    """Reject what would be taken for pixels where its length happens to fit."""
    if is_whole_picture(data):
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
    _reject_known_file(data)
    if begins_like_json(data):
        try:
            _parse_json(data)
        except BadInput:  # pixels, of which the first happen to be a bracket
            return
        raise BadInput(
            "json_as_raw",
            "The body is JSON but came as application/octet-stream, which means raw pixels. Send it with "
            "Content-Type: application/json.",
        )


def _reject_known_file(body: bytes | bytearray) -> None:
    known = find_known_file(body)
    if known is None:
        return
    advice = "Convert it to one of them." if known.is_picture else "Unpack or convert what it holds."
    raise BadInput(
        "unsupported_picture" if known.is_picture else "unsupported_file",
        f"The body is {known.name}, expected PNG, JPEG, .npy, JSON or raw pixels. {advice}",
    )


def _decode_picture(body: object, query: Mapping[str, str]) -> DecodedRequest:
    data = _as_bytes(body)
    options = read_options({}, query)
    _reject_scale(options, "The pixels of an image file")
    return _request(DecodedImages(decode_picture(data)[None], scaled=False), False, options)


def _decode_npy(body: object, query: Mapping[str, str]) -> DecodedRequest:
    data = _as_bytes(body)
    options = read_options({}, query)
    pixels, many = decode_npy(data, options.max_value)
    if not pixels.scaled:
        _reject_scale(options, "The numbers of a uint8 array")
    return _request(pixels, many, options)


def _request(pixels: DecodedImages, many: bool, options: RequestOptions) -> DecodedRequest:
    return DecodedRequest(pixels.images, many, options.top_k, 1 if pixels.scaled else None)


def _as_bytes(body: object) -> bytes | bytearray:
    if not isinstance(body, (bytes, bytearray)) or not body:
        raise _empty()
    return body


def _reject_scale(options: RequestOptions, what: str) -> None:
    if options.max_value == 1:
        raise BadInput(
            "wrong_max_value",
            f"max_value is 1, but {what[0].lower()}{what[1:]} are whole numbers in 0–255. Leave max_value out; it is "
            "for numbers in JSON and for arrays of floats.",
        )


def _empty() -> BadInput:
    return BadInput("empty_body", f"The body is empty, expected an image. Send it with Content-Type {_TAKEN}.")


def _reject_form(body: object, query: Mapping[str, str]) -> DecodedRequest:
    raise BadInput(
        "form_body",
        "The body came as application/x-www-form-urlencoded, which `curl -d` adds by itself. Add the header "
        "Content-Type: application/json for JSON; for an image use curl --data-binary @cat.png with "
        "Content-Type: image/png.",
    )


def _unsupported(media_type: str, body: object) -> BadInput:
    code = "unsupported_picture" if media_type.startswith("image/") else "unsupported_type"
    return BadInput(code, f"The Content-Type is {show(media_type)}, expected {_TAKEN}.{_hint_at_type(body)}")


def _hint_at_type(body: object) -> str:
    if isinstance(body, str):  # TorchServe decodes text
        body = body[:200].encode("utf-8", "replace")
    if not isinstance(body, (bytes, bytearray)):
        return ""
    known = find_known_file(body)
    if known is not None:
        return f" The body is {known.name}: convert it."
    kinds = {
        "application/json": begins_like_json(body),
        "application/x-npy": is_npy(body),
        "image/png or image/jpeg": is_picture(body),
    }
    return "".join(f" The body looks like it: send it with Content-Type: {kind}." for kind in kinds if kinds[kind])


_DECODERS: Mapping[str, Callable[[object, Mapping[str, str]], DecodedRequest]] = {
    "application/json": _decode_json,
    "application/octet-stream": _decode_raw,
    "application/x-npy": _decode_npy,
    "image/png": _decode_picture,
    "image/jpeg": _decode_picture,
    "image/jpg": _decode_picture,  # no registered name, but a common one
    "application/x-www-form-urlencoded": _reject_form,
}
