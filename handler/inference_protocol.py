"""The Open Inference Protocol (KServe V2): its request to images, and what its answer must repeat.

The protocol: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
Binary tensors, and the parameters of Triton's clients, are the extensions that `tensors` names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bad_input import BadInput, show
from embedded_images import decode_base64, decode_image_files
from pictures import is_picture
from pixels import IMAGE_LENGTH, IMAGE_SHAPE, MAX_IMAGES, DecodedImages, check_count, decode_flat, decode_images
from request_options import OPTION_NAMES, RequestOptions, asks_for_nothing, read_options
from tensors import BYTES, NUMBER_TYPES, is_integer, read_elements, read_numbers

OUTPUT_NAMES = ("label", "class_index", "probabilities")
TOP_K_NAMES = ("top_k_label", "top_k_confidence")
DATATYPES = (*NUMBER_TYPES, BYTES)

_REQUEST_KEYS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
_INPUT_KEYS = ("name", "shape", "datatype", "data", "parameters")
_REQUIRED_KEYS = _INPUT_KEYS[:3]
_OUTPUT_KEYS = ("name", "parameters")
# What servers may heed or not, and what says how the sender's program stores a tensor. No answer depends on them: one
# request knows nothing of others.
_PASSED_OVER = {"content_type", "headers", "priority", "timeout", "sequence_id", "sequence_start", "sequence_end"}
_BINARY_OUTPUTS = "binary_data_output"
_MAX_CLASSES = 10
_MAX_OUTPUTS = 16


@dataclass(frozen=True)
class Output:
    """One tensor of the answer.

    Attributes:
        name: one of OUTPUT_NAMES or TOP_K_NAMES.
        binary: whether its data stand behind the JSON.
        classes: of `probabilities`: how many classes to name, most probable first, instead of all numbers; 0: none.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class OpenInferenceReply:
    """What the answer must repeat or hold.

    Attributes:
        request_id: the sender's id; None where there was none.
        outputs: what to send, in this order.
    """

    request_id: str | None
    outputs: tuple[Output, ...]


def decode_open_inference(
    request: Mapping[str, Any], tail: memoryview | None, query: Mapping[str, str]
) -> tuple[DecodedImages, RequestOptions, OpenInferenceReply]:
    """Read one request.

    Its one input holds numbers, [N, 32, 32, 3], [N, 3072] or, for one image, without N; or image files, datatype BYTES.
    JSON data is flat or nested. `parameters` of the request may hold top_k and max_value; others are rejected where
    they would change an answer and passed over where they ask for nothing.

    Args:
        request: the parsed JSON, with the key "inputs".
        tail: the bytes behind the JSON; None where there was nothing but JSON.
        query: options beside the body, as text.

    Raises:
        BadInput: see `bad_input.STATUS_OF_CODE`.
    """
    _reject_unknown_keys(request, _REQUEST_KEYS, "The request")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise _wrong_type("id", request_id, "a string")
    if isinstance(request_id, str) and not _is_encodable(request_id):
        raise _wrong_type("id", request_id, "a string of whole characters")
    options, all_binary = _read_parameters(request.get("parameters"), query)
    outputs = _read_outputs(request.get("outputs"), options, all_binary)
    tensor = _only_input(request["inputs"])
    return _read_tensor(tensor, tail, options), options, OpenInferenceReply(request_id, outputs)


# What to answer ------------------------------------------------------------------------------------------------------


def _read_outputs(outputs: object, options: RequestOptions, all_binary: bool) -> tuple[Output, ...]:
    ranked = TOP_K_NAMES if options.top_k is not None else ()
    if outputs is None or outputs == []:
        asked = {name: Output(name, all_binary) for name in OUTPUT_NAMES}
    elif type(outputs) is list and len(outputs) <= _MAX_OUTPUTS:
        asked = {}
        for output in _each_output(outputs, (*OUTPUT_NAMES, *ranked), all_binary):
            asked.setdefault(output.name, output)  # one that is asked for twice comes once
    else:
        raise _wrong_type("outputs", outputs, f'a list like [{{"name": "label"}}], of at most {_MAX_OUTPUTS}')
    for name in ranked:
        asked.setdefault(name, Output(name, all_binary))
    return tuple(asked.values())


def _each_output(outputs: list[Any], known: tuple[str, ...], all_binary: bool) -> Iterator[Output]:
    for index, output in enumerate(outputs):
        where = f"outputs[{index}]"
        if type(output) is not dict:
            raise _wrong_type(where, output, 'an object like {"name": "label"}')
        _reject_unknown_keys(output, _OUTPUT_KEYS, where)
        name = output.get("name")
        if not isinstance(name, str) or name not in known:
            advice = " Those of top_k come where the parameter top_k is set." if name in TOP_K_NAMES else ""
            raise BadInput(
                "unknown_output", f"{where} asks for {show(name)}, expected one of {', '.join(known)}.{advice}"
            )
        allowed = ("binary_data", "classification") if name == "probabilities" else ("binary_data",)
        parameters = _parameters_of(output, where, allowed)
        binary = parameters.get("binary_data", all_binary)
        classes = parameters.get("classification", 0)
        if type(binary) is not bool:
            raise _wrong_type(f"{where}.parameters.binary_data", binary, "true or false")
        if type(classes) is not int or not 0 <= classes <= _MAX_CLASSES:
            raise _wrong_type(f"{where}.parameters.classification", classes, f"a whole number to {_MAX_CLASSES}")
        yield Output(name, binary, classes)


def _read_parameters(parameters: object, query: Mapping[str, str]) -> tuple[RequestOptions, bool]:
    """Return the options, and whether all outputs are asked for in binary form."""
    known = _parameters_of({"parameters": parameters}, "The request", (*OPTION_NAMES, _BINARY_OUTPUTS))
    binary = known.get(_BINARY_OUTPUTS, False)
    if type(binary) is not bool:
        raise _wrong_type(f"parameters.{_BINARY_OUTPUTS}", binary, "true or false")
    return read_options(known, query), binary


def _parameters_of(holder: Mapping[str, Any], where: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the parameters that are known, without those that are null; rejects others unless they change nothing."""
    parameters = holder.get("parameters")
    if asks_for_nothing(parameters):
        return {}
    if type(parameters) is not dict:
        raise _wrong_type(f"{where}.parameters", parameters, "an object")
    unknown = [
        name
        for name, value in parameters.items()
        if name not in known and name not in _PASSED_OVER and not asks_for_nothing(value)
    ]
    if unknown:
        raise BadInput(
            "unknown_option",
            f"{where} has the parameter {show(unknown[0])}, which is not known. Known are {', '.join(known)}.",
        )
    return {name: parameters[name] for name in known if parameters.get(name) is not None}


# The input -----------------------------------------------------------------------------------------------------------


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


def _read_tensor(tensor: dict[str, Any], tail: memoryview | None, options: RequestOptions) -> DecodedImages:
    _reject_unknown_keys(tensor, _INPUT_KEYS, "inputs[0]")
    missing = [key for key in _REQUIRED_KEYS if key not in tensor]
    if missing:
        raise BadInput("missing_key", f"inputs[0] has no {missing[0]}, expected {', '.join(_INPUT_KEYS[:4])}.")
    if not isinstance(tensor["name"], str):
        raise _wrong_type("inputs[0].name", tensor["name"], "a string")
    datatype = tensor["datatype"]
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadInput(
            "wrong_datatype", f"inputs[0].datatype is {show(datatype)}, expected one of {', '.join(DATATYPES)}."
        )
    if options.max_value == 1 and (datatype == BYTES or is_integer(datatype)):
        raise BadInput(
            "wrong_max_value",
            f"max_value is 1, but {datatype} means whole numbers in 0–255. Send FP32 for numbers in 0–1.",
        )
    parameters = _parameters_of(tensor, "inputs[0]", ("binary_data_size",))
    data = _binary_data(tensor, parameters.get("binary_data_size"), tail)
    if datatype == BYTES:
        return _read_image_files(tensor, data)
    count, batched = _read_shape(tensor["shape"])
    if data is not None:
        return read_numbers(data, datatype, count, _name_of, 255 if is_integer(datatype) else options.max_value)
    return _read_json_numbers(tensor["data"], datatype, count, batched, options)


def _binary_data(tensor: dict[str, Any], size: object, tail: memoryview | None) -> memoryview | None:
    """Return the input's bytes behind the JSON; None where its data stand in the JSON."""
    if size is None:
        if tail:
            raise BadInput(
                "malformed_tensors",
                f"{len(tail):,} bytes follow the JSON, but inputs[0] has no parameter binary_data_size that claims "
                "them.",
            )
        if tensor.get("data") is None:
            raise BadInput("missing_key", f"inputs[0] has no data, expected {', '.join(_INPUT_KEYS[:4])}.")
        return None
    came = len(tail) if tail is not None else 0
    if type(size) is not int or size != came or tensor.get("data") is not None:
        advice = (
            "Send data or binary_data_size, not both."
            if tensor.get("data") is not None
            else "The header Inference-Header-Content-Length says where the JSON ends, and what follows is the tensor."
        )
        raise BadInput(
            "malformed_tensors",
            f"inputs[0] has the parameter binary_data_size {show(size)}, and {came:,} bytes follow the JSON. {advice}",
        )
    return tail if tail is not None else memoryview(b"")


def _read_json_numbers(
    data: object, datatype: str, count: int, batched: bool, options: RequestOptions
) -> DecodedImages:
    if not is_integer(datatype):
        return _read_data(data, count, batched, options.max_value)
    pixels = _read_data(data, count, batched, 255)
    if pixels.images.dtype != np.uint8:
        raise BadInput(
            "wrong_datatype", f"inputs[0].datatype is {datatype}, but its data has fractions. Send them as FP32."
        )
    return pixels


def _read_image_files(tensor: dict[str, Any], data: memoryview | None) -> DecodedImages:
    """Read a tensor of BYTES, [N] or [N, 1]: an image file an element."""
    shape = tensor["shape"]
    whole = type(shape) is list and all(type(length) is int for length in shape)
    if not whole or shape[1:] not in ([], [1]) or not shape or shape[0] < 0:
        shown = _show_shape(shape) if whole else show(shape)
        raise BadInput("wrong_shape", f"inputs[0].shape is {shown}, expected [N], one element of BYTES an image file.")
    count = _check_claimed(shape[0], shape)
    if data is not None:
        elements: list[Any] = list(read_elements(data, count))
    else:
        elements = tensor["data"] if type(tensor["data"]) is list else [tensor["data"]]
        if len(shape) == 2 and all(type(element) is list and len(element) == 1 for element in elements):
            elements = [element[0] for element in elements]
        if len(elements) != count:
            raise _mismatch(shape, f"{count:,} elements", f"{len(elements):,} elements")
    files = [_file_of(element, _name_of(index)) for index, element in enumerate(elements)]
    return DecodedImages(decode_image_files(files, _name_of), scaled=False)


def _file_of(element: object, name: str) -> bytes:
    """Return an image file; in JSON it is base64, and some clients write that in binary tensors too."""
    if isinstance(element, bytes):
        if is_picture(element) or not element.isascii():
            return element
        element = element.decode("ascii")
    if not isinstance(element, str):
        raise _wrong_type(name, element, "an image file in base64")
    return decode_base64(element, name)


def _read_shape(shape: object) -> tuple[int, bool]:
    """Return N, and whether the shape has this dimension; raises BadInput for shapes that are no images'."""
    if type(shape) is not list or not all(type(length) is int for length in shape):
        raise _wrong_type("inputs[0].shape", shape, "a list of whole numbers, [N, 32, 32, 3]")
    if shape[1:] == [3, 32, 32] or shape == [3, 32, 32]:
        raise BadInput(
            "channels_first",
            f"inputs[0].shape is {_show_shape(shape)}, channels first, expected channels last, [N, 32, 32, 3]. "
            "In PyTorch: images.movedim(-3, -1); in numpy: numpy.moveaxis(images, -3, -1).",
        )
    one = (list(IMAGE_SHAPE), [IMAGE_LENGTH])
    if shape in one:
        return 1, False
    if not shape or shape[1:] not in one or shape[0] < 0:
        raise BadInput(
            "wrong_shape",
            f"inputs[0].shape is {_show_shape(shape)}, expected [N, 32, 32, 3] or [N, 3072]; for one image [32, 32, 3] "
            "or [3072] will do.",
        )
    return _check_claimed(shape[0], shape), True


def _check_claimed(count: int, shape: list[int]) -> int:
    if count == 0:
        raise BadInput("no_images", f"inputs[0].shape is {_show_shape(shape)}, expected 1 to {MAX_IMAGES} images.")
    check_count(min(count, 10**9))  # the claimed number may be too long to print
    return count


def _read_data(data: object, count: int, batched: bool, max_value: int | None) -> DecodedImages:
    if type(data) is not list:
        raise _wrong_type("inputs[0].data", data, f"a list of {count * IMAGE_LENGTH:,} numbers, flat or nested")
    nested = bool(data) and type(data[0]) is list
    if nested and not batched:
        data = [data]
    if len(data) != (count if nested else count * IMAGE_LENGTH):
        what = f"{len(data):,} images" if nested else f"{len(data):,} numbers"
        raise _mismatch([count, *IMAGE_SHAPE], f"{count * IMAGE_LENGTH:,} numbers", what)
    if nested:
        return decode_images(data, "inputs[0].data", max_value)
    return decode_flat(data, count, _name_of, max_value)


def _name_of(index: int) -> str:
    return f"inputs[0].data, image {index}"


# Messages ------------------------------------------------------------------------------------------------------------


def _show_shape(shape: list[int]) -> str:
    return "[" + ", ".join(show(length) for length in shape[:6]) + (", …]" if len(shape) > 6 else "]")


def _mismatch(shape: list[int], expected: str, came: str) -> BadInput:
    return BadInput(
        "shape_mismatch",
        f"inputs[0].shape is {_show_shape(shape)}, {expected}, but data has {came}. Let the shape say what is sent.",
    )


def _reject_unknown_keys(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    unknown = [key for key in value if key not in known and not asks_for_nothing(value[key])]
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
