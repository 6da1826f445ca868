"""The Open Inference Protocol (KServe V2) in JSON: its request to images, and what its answer must repeat.

The protocol: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bad_input import BadInput, show
from pixels import IMAGE_LENGTH, IMAGE_SHAPE, MAX_IMAGES, Pixels, check_count, decode_flat, decode_images
from request_options import OPTION_NAMES, Options, read_options

OUTPUT_NAMES = ("label", "class_index", "probabilities")
DATATYPES = ("UINT8", "FP32")

_REQUEST_KEYS = ("id", "parameters", "inputs", "outputs")
_INPUT_KEYS = ("name", "shape", "datatype", "data", "parameters")
_REQUIRED_KEYS = _INPUT_KEYS[:4]


@dataclass(frozen=True)
class OpenInferenceReply:
    """What the answer must repeat or hold.

    Attributes:
        request_id: the sender's id; None where there was none.
        outputs: which of OUTPUT_NAMES to send, in this order.
    """

    request_id: str | None
    outputs: tuple[str, ...]


def decode_open_inference(
    request: Mapping[str, Any], query: Mapping[str, str]
) -> tuple[Pixels, Options, OpenInferenceReply]:
    """Read one request.

    Its one input has the shape [N, 32, 32, 3], also for N = 1: the protocol's clients always send the dimension of the
    batch. `data` is flat or nested. `parameters` of the request may hold top_k and max_value; others are refused,
    because they would be ignored in silence. The binary extension is not taken.

    Args:
        request: the parsed JSON, with the key "inputs".
        query: options beside the body, as text.

    Raises:
        BadInput: see `bad_input.STATUS_OF_CODE`.
    """
    _refuse_unknown_keys(request, _REQUEST_KEYS, "The request")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise _wrong_type("id", request_id, "a string")
    if isinstance(request_id, str) and not _is_encodable(request_id):
        raise _wrong_type("id", request_id, "a string of whole characters")
    outputs = _read_outputs(request.get("outputs"))
    options = _read_parameters(request.get("parameters"), query)
    tensor = _only_input(request["inputs"])
    return _read_tensor(tensor, options), options, OpenInferenceReply(request_id, outputs)


def _read_outputs(outputs: object) -> tuple[str, ...]:
    if outputs is None or outputs == []:
        return OUTPUT_NAMES
    if type(outputs) is not list:
        raise _wrong_type("outputs", outputs, 'a list like [{"name": "label"}]')
    return tuple(dict.fromkeys(_names_of(outputs)))  # one that is asked for twice comes once


def _names_of(outputs: list[Any]) -> Iterator[str]:
    for index, output in enumerate(outputs):
        if type(output) is not dict:
            raise _wrong_type(f"outputs[{index}]", output, 'an object like {"name": "label"}')
        _refuse_unknown_keys(output, ("name", "parameters"), f"outputs[{index}]")
        _refuse_parameters(output.get("parameters"), f"outputs[{index}].parameters")
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUT_NAMES:
            raise BadInput(
                "unknown_output",
                f"outputs[{index}] asks for {show(name)}, expected one of {', '.join(OUTPUT_NAMES)}.",
            )
        yield name


def _read_parameters(parameters: object, query: Mapping[str, str]) -> Options:
    if parameters is None:
        return read_options({}, query)
    if type(parameters) is not dict:
        raise _wrong_type("parameters", parameters, 'an object like {"top_k": 3}')
    unknown = [name for name in parameters if name not in OPTION_NAMES]
    if unknown:
        raise BadInput(
            "unknown_option",
            f"parameters has {show(unknown[0])}, which is not known. Known are {' and '.join(OPTION_NAMES)}.",
        )
    return read_options(parameters, query)


def _only_input(inputs: object) -> dict[str, Any]:
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        what = f"a list of {len(inputs):,}" if type(inputs) is list and len(inputs) != 1 else None
        raise BadInput(
            "wrong_inputs",
            f"inputs is {what or show(inputs[0] if type(inputs) is list else inputs)}, expected a list of exactly one "
            'tensor: [{"name": "images", "shape": [N, 32, 32, 3], "datatype": "UINT8", "data": […]}].',
        )
    tensor: dict[str, Any] = inputs[0]
    return tensor


def _read_tensor(tensor: dict[str, Any], options: Options) -> Pixels:
    _refuse_unknown_keys(tensor, _INPUT_KEYS, "inputs[0]")
    _refuse_parameters(tensor.get("parameters"), "inputs[0].parameters")  # binary data stands there instead of data
    missing = [key for key in _REQUIRED_KEYS if key not in tensor]
    if missing:
        raise BadInput("missing_key", f"inputs[0] has no {missing[0]}, expected {', '.join(_REQUIRED_KEYS)}.")
    if not isinstance(tensor["name"], str):
        raise _wrong_type("inputs[0].name", tensor["name"], "a string")
    count = _read_shape(tensor["shape"])
    datatype = tensor["datatype"]
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadInput("wrong_datatype", f"inputs[0].datatype is {show(datatype)}, expected {' or '.join(DATATYPES)}.")
    if datatype == "FP32":
        return _read_data(tensor["data"], count, options.max_value)
    if options.max_value == 1:
        raise BadInput("wrong_max_value", "max_value is 1, but UINT8 means whole numbers in 0–255. Send FP32 for 0–1.")
    pixels = _read_data(tensor["data"], count, 255)
    if pixels.images.dtype != np.uint8:
        raise BadInput("wrong_datatype", "inputs[0].datatype is UINT8, but its data has fractions. Send them as FP32.")
    return pixels


def _read_shape(shape: object) -> int:
    """Return N; raises BadInput for any shape but [N, 32, 32, 3]."""
    if type(shape) is not list or not all(type(length) is int for length in shape):
        raise _wrong_type("inputs[0].shape", shape, "a list of whole numbers, [N, 32, 32, 3]")
    shown = "[" + ", ".join(show(length) for length in shape[:6]) + (", …]" if len(shape) > 6 else "]")
    if shape[1:] == [3, 32, 32] or shape == [3, 32, 32]:
        raise BadInput(
            "channels_first",
            f"inputs[0].shape is {shown}, channels first, expected channels last, [N, 32, 32, 3]. "
            "In PyTorch: images.movedim(-3, -1); in numpy: numpy.moveaxis(images, -3, -1).",
        )
    if len(shape) != 4 or tuple(shape[1:]) != IMAGE_SHAPE or shape[0] < 0:
        advice = " One image is [1, 32, 32, 3]." if tuple(shape) == IMAGE_SHAPE else ""
        raise BadInput("wrong_shape", f"inputs[0].shape is {shown}, expected [N, 32, 32, 3].{advice}")
    count: int = shape[0]
    if count == 0:
        raise BadInput("no_images", f"inputs[0].shape is {shown}, expected 1 to {MAX_IMAGES} images.")
    check_count(min(count, 10**9))  # the claimed number may be too long to print
    return count


def _read_data(data: object, count: int, max_value: int | None) -> Pixels:
    if type(data) is not list:
        raise _wrong_type("inputs[0].data", data, f"a list of {count * IMAGE_LENGTH:,} numbers, flat or nested")
    nested = bool(data) and type(data[0]) is list
    if len(data) != (count if nested else count * IMAGE_LENGTH):
        what = f"{len(data):,} images" if nested else f"{len(data):,} numbers"
        raise BadInput(
            "shape_mismatch",
            f"inputs[0].shape is [{count}, 32, 32, 3], {count * IMAGE_LENGTH:,} numbers, but data has {what}. "
            "Let the shape say what is sent.",
        )
    if nested:
        return decode_images(data, "inputs[0].data", max_value)
    return decode_flat(data, count, lambda index: f"inputs[0].data, image {index}", max_value)


def _refuse_parameters(parameters: object, where: str) -> None:
    if parameters:
        raise BadInput(
            "unknown_option",
            f"{where} is {show(parameters)}, expected none. Numbers come as JSON in data, not as binary data; options "
            "stand in the parameters of the request.",
        )


def _refuse_unknown_keys(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    unknown = [key for key in value if key not in known]
    if unknown:
        raise BadInput(
            "unknown_key", f"{what} has the key {show(unknown[0])}, which is not known. Known are {', '.join(known)}."
        )


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and UTF-8 cannot
        return False
    return True


def _wrong_type(key: str, value: object, expected: str) -> BadInput:
    return BadInput("wrong_key_type", f"{key} is {show(value)}, expected {expected}.")
