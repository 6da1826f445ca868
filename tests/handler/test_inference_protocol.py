"""The Open Inference Protocol's requests and answers, without a server."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from answers import Answer, ModelInfo, encode_answer
from bad_input import STATUS_OF_CODE
from decoding import BadInput, DecodedRequest, decode_request
from tensors import NUMBER_TYPES, read_elements
from tests.handler.bad_tensors import BAD_BINARY
from tests.handler.samples import FLAT, IMAGE, JPEG, JSON, NESTED, PNG, RAW, tensor_of

SCALED = (IMAGE / 255).astype(np.float32)
LABELS = [f"class {index}" for index in range(10)]
MODEL = ModelInfo("cifar", "1.0", LABELS)
PROBABILITIES = np.array([[0.05] * 3 + [0.55] + [0.05] * 6, [0.64] + [0.04] * 9], dtype=np.float32)


def decode(document: dict[str, Any], data: bytes | None = None) -> DecodedRequest:
    if data is None:
        return decode_request(document, JSON, {})
    text = json.dumps(document).encode()
    return decode_request(bytearray(text + data), RAW, {}, str(len(text)))


def binary_request(array: np.ndarray, datatype: str, **keys: Any) -> tuple[dict[str, Any], bytes]:
    data = array.astype(NUMBER_TYPES[datatype]).tobytes()
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": "x", "shape": list(array.shape), "datatype": datatype, "parameters": parameters}
    return {"inputs": [tensor], **keys}, data


def elements(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


@pytest.mark.parametrize("datatype", [name for name in NUMBER_TYPES if name != "INT8"])
@pytest.mark.parametrize("form", ["binary", "JSON"])
def test_every_number_type_holds_pixels(datatype, form):
    images = np.stack([IMAGE, IMAGE[::-1]])
    if form == "binary":
        decoded = decode(*binary_request(images, datatype))
    else:
        decoded = decode({"inputs": [tensor_of(images.astype(NUMBER_TYPES[datatype]), datatype=datatype)]})
    assert np.array_equal(decoded.images, images)
    assert decoded.images.dtype == np.uint8
    assert decoded.max_value is None


def test_int8_holds_dark_pixels_only():
    dark = IMAGE // 2
    assert np.array_equal(decode(*binary_request(dark[None], "INT8")).images[0], dark)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_binary_floats_in_0_to_1_are_taken_as_scaled(datatype):
    decoded = decode(*binary_request(SCALED[None], datatype))
    assert decoded.max_value == 1
    assert np.array_equal(decoded.images[0].round(), IMAGE)


def test_binary_uint8_is_a_view_of_the_body():
    assert decode(*binary_request(IMAGE[None], "UINT8")).images.base is not None


@pytest.mark.parametrize("shape", [[1, 32, 32, 3], [1, 3072], [32, 32, 3], [3072]])
@pytest.mark.parametrize("data", [FLAT, NESTED, None], ids=["flat", "nested", "binary"])
def test_every_shape_of_one_image_is_taken(shape, data):
    if data is None:
        decoded = decode(*binary_request(IMAGE.reshape(shape), "UINT8"))
    else:
        nested = data if data is FLAT or len(shape) in (1, 3) else [data]
        decoded = decode({"inputs": [tensor_of(IMAGE, shape=shape, data=nested)]})
    assert decoded.images.tolist() == [NESTED]


def test_image_files_come_as_bytes_in_json_or_behind_it():
    texts = [base64.b64encode(file).decode() for file in (PNG, JPEG)]
    tensor = {"name": "x", "shape": [2], "datatype": "BYTES", "data": texts}
    expected = decode({"inputs": [tensor]}).images
    assert expected[0].tolist() == NESTED
    nested = decode({"inputs": [tensor | {"shape": [2, 1], "data": [[text] for text in texts]}]})
    assert np.array_equal(nested.images, expected)
    for files in ((PNG, JPEG), tuple(text.encode() for text in texts)):
        data = elements(*files)
        binary = {"name": "x", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
        assert np.array_equal(decode({"inputs": [binary]}, data).images, expected)


@pytest.mark.parametrize(
    "keys",
    [
        {"id": None, "outputs": None, "parameters": None, "model_name": "cifar", "model_version": None},
        {"id": "", "outputs": [], "parameters": {}},
        {"parameters": {"content_type": "np", "headers": {"a": "b"}, "binary_data_output": False}},
        {"parameters": {"sequence_id": 7, "sequence_start": True, "sequence_end": False, "priority": 1, "timeout": 9}},
        {"parameters": {"top_k": None, "max_value": None, "anything": None, "flag": False}, "extra": {}},
        {"outputs": [{"name": "label", "parameters": {"content_type": "str", "binary_data": False}}]},
    ],
)
def test_keys_that_ask_for_nothing_are_passed_over(keys):
    tensor = tensor_of(IMAGE[None], parameters={"content_type": "np"})
    assert decode({"inputs": [tensor], **keys}).images.tolist() == [NESTED]


@pytest.mark.parametrize(("body", "length", "code", "words"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_binary_rejection_says_what_came(body, length, code, words):
    with pytest.raises(BadInput) as caught:
        decode_request(body, RAW, {}, length)
    assert (caught.value.code, caught.value.status) == (code, STATUS_OF_CODE[code])
    assert [word for word in words if word not in caught.value.message] == []
    assert caught.value.open_inference
    assert len(caught.value.message) < 500


def answer(keys: dict[str, Any]) -> Answer:
    request = {"inputs": [tensor_of(np.stack([IMAGE, IMAGE]))], **keys}
    return encode_answer(decode(request), PROBABILITIES, MODEL)


def read(reply: Answer) -> dict[str, Any]:
    """Read an answer as the protocol says: shape and values of each output."""
    length = len(reply.body) if reply.json_length is None else reply.json_length
    document, rest = json.loads(reply.body[:length]), memoryview(reply.body)[length:]
    outputs = {}
    for output in document["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            values = output["data"]
        else:
            assert "data" not in output
            data, rest = rest[:size], rest[size:]
            if output["datatype"] == "BYTES":
                values = [element.decode() for element in read_elements(data, int(np.prod(output["shape"])))]
            else:
                values = np.frombuffer(data, NUMBER_TYPES[output["datatype"]]).tolist()
        assert len(values) == np.prod(output["shape"])
        outputs[output["name"]] = values
    assert not rest
    return outputs


def test_binary_outputs_hold_what_json_holds():
    in_json = answer({"parameters": {"top_k": 2}})
    binary = answer({"parameters": {"top_k": 2, "binary_data_output": True}})
    assert (in_json.json_length, binary.json_length is None) == (None, False)
    values = read(in_json)
    assert list(values) == ["label", "class_index", "probabilities", "top_k_label", "top_k_confidence"]
    assert (values["label"], values["class_index"]) == (["class 3", "class 0"], [3, 0])
    for name, expected in read(binary).items():
        assert values[name] == (pytest.approx(expected) if isinstance(expected[0], float) else expected)


def test_each_output_is_binary_or_not_as_it_asks():
    outputs = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "label", "parameters": {"binary_data": False}},
    ]
    reply = answer({"outputs": outputs, "parameters": {"binary_data_output": True}})
    assert reply.json_length is not None
    document = json.loads(reply.body[: reply.json_length])
    assert [("data" in output) for output in document["outputs"]] == [False, True]
    assert list(read(reply)) == ["probabilities", "label"]


def test_classification_names_the_most_probable_classes():
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    values = read(answer({"outputs": outputs}))["probabilities"]
    assert values == ["0.550000:3:class 3", "0.050000:0:class 0", "0.640000:0:class 0", "0.040000:1:class 1"]


def test_top_k_outputs_may_be_asked_for_by_name():
    values = read(answer({"outputs": [{"name": "top_k_label"}], "parameters": {"top_k": 1}}))
    assert list(values) == ["top_k_label", "top_k_confidence"]
    assert values["top_k_label"] == ["class 3", "class 0"]
