"""How a request is rejected: one code a reason, one status a code."""

from collections.abc import Mapping
from types import MappingProxyType

# The client's contract: codes are never renamed, and a code's status never changes.
STATUS_OF_CODE: Mapping[str, int] = MappingProxyType(
    {
        # 400: the body cannot be read as what it is said to be.
        "empty_body": 400,
        "malformed_json": 400,
        "unreadable_picture": 400,
        "malformed_npy": 400,
        "malformed_form": 400,
        "empty_field": 400,
        "malformed_encoding": 400,
        "partial_body": 400,
        "conflicting_headers": 400,
        "malformed_base64": 400,
        "malformed_tensors": 400,
        # 413: more than one request may hold.
        "too_many_images": 413,
        "picture_too_large": 413,
        "too_much_work": 413,
        "body_too_large": 413,
        # 415: this kind of body is not taken.
        "form_body": 415,
        "unsupported_type": 415,
        "unsupported_picture": 415,
        "unsupported_file": 415,
        "unrecognised_body": 415,
        "unsupported_encoding": 415,
        "unsupported_charset": 415,
        # 422: readable, but not what the model takes.
        "wrong_json": 422,
        "missing_image": 422,
        "two_image_keys": 422,
        "unknown_key": 422,
        "unknown_option": 422,
        "wrong_top_k": 422,
        "wrong_max_value": 422,
        "conflicting_option": 422,
        "no_images": 422,
        "not_a_list": 422,
        "wrong_length": 422,
        "wrong_nesting": 422,
        "ragged_image": 422,
        "channels_first": 422,
        "not_a_number": 422,
        "boolean": 422,
        "null": 422,
        "nan": 422,
        "infinity": 422,
        "negative_number": 422,
        "number_too_large": 422,
        "mixed_scales": 422,
        "picture_as_raw": 422,
        "animated_picture": 422,
        # .npy, and tensors of the Open Inference Protocol
        "npy_as_raw": 422,
        "json_as_raw": 422,
        "numbers_as_raw": 422,
        "pickled_npy": 422,
        "wrong_datatype": 422,
        "wrong_shape": 422,
        "shape_mismatch": 422,
        "wrong_inputs": 422,
        "missing_key": 422,
        "wrong_key_type": 422,
        "unknown_output": 422,
        # Forms
        "wrong_field": 422,
        "repeated_field": 422,
    }
)

_SHOWN_CHARACTERS = 60


class BadInput(Exception):
    """A request that cannot be answered, described so that its sender can fix it.

    Attributes:
        status: HTTP status, 400, 413, 415 or 422.
        code: a key of STATUS_OF_CODE, for programs.
        message: what came, what was expected and how to fix it, for people.
        open_inference: whether the request was one of the Open Inference Protocol, whose errors have a form of their
            own.
    """

    open_inference = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.status = STATUS_OF_CODE[code]
        self.code = code
        self.message = message


def show(value: object) -> str:
    """Name a JSON value in a message: itself where it is short, else its kind and size.

    Never longer than a line, never raises, and free of lone surrogates, which could not be encoded in the answer.
    """
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    if isinstance(value, dict):
        return f"an object with {len(value):,} keys"
    if isinstance(value, int) and value.bit_length() > 64:  # Python rejects to print integers of 4,300 digits
        return f"an integer of {value.bit_length():,} bits"
    if isinstance(value, (str, bytes, bytearray)):
        cut = ascii(value[:_SHOWN_CHARACTERS] if isinstance(value, str) else bytes(value[:_SHOWN_CHARACTERS]))
        shown = cut.removeprefix("b")  # bytes are shown as text, which they mostly are
        return shown if len(value) <= _SHOWN_CHARACTERS else f"{shown}… ({len(value):,} long)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ascii(value)[:_SHOWN_CHARACTERS]
