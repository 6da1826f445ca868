"""Predictions by TorchServe's gRPC, from a real server."""

import base64
import json

import grpc
import orjson
import pytest

from tests.handler.samples import npy_of, png_of, tensor_of
from tests.support.predictions_stub import predictions


@pytest.fixture(scope="module")
def predict(torchserve):
    with predictions(*torchserve.server.addresses.endpoints["grpc_inference_port"]) as call:
        yield call


@pytest.fixture(scope="module")
def expected(torchserve, images):
    return torchserve.post(images[0].tobytes(), "application/octet-stream").json()


@pytest.mark.parametrize("name", ["data", "body", "image", "anything", "content-type"])
@pytest.mark.parametrize("kind", ["raw", "png", "npy", "json", "base64"])
def test_a_sole_input_of_any_name_is_the_image(predict, images, expected, name, kind):
    content = {
        "raw": images[0].tobytes(),
        "png": png_of(images[0]),
        "npy": npy_of(images[0]),
        "json": json.dumps({"image": images[0].tolist()}).encode(),
        "base64": json.dumps({"b64": base64.b64encode(png_of(images[0])).decode()}).encode(),
    }[kind]
    answer = orjson.loads(predict(**{name: content}))
    assert answer["prediction"] == expected["prediction"]
    assert answer["confidence"] == pytest.approx(expected["confidence"], abs=1e-5)


def test_options_are_inputs_too(predict, images):
    answer = orjson.loads(predict(data=images[0].tobytes(), top_k=b"3"))
    assert len(answer["top_k"]) == 3
    assert orjson.loads(predict("1.0", data=npy_of(images / 255), max_value=b"1"))


def test_several_images_come_in_one_input(predict, images):
    answer = orjson.loads(predict("1.0", data=images.tobytes()))
    assert len(answer["predictions"]) == 16


def test_the_open_inference_protocol_as_json(predict, images):
    answer = orjson.loads(predict(data=json.dumps({"inputs": [tensor_of(images)]}).encode()))
    assert answer["outputs"][0]["shape"] == [16]


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"first": b"x" * 3072, "second": b"x" * 3072}, "wrong_inputs"),
        ({"top_k": b"3"}, "empty_body"),
        ({}, "empty_body"),
        ({"data": b"short"}, "unrecognised_body"),
        ({"data": b"x" * 3072, "top_k": b"11"}, "wrong_top_k"),
    ],
)
def test_a_rejection_is_an_answer(predict, inputs, code):
    """TorchServe passes no status on: the code stands in the answer."""
    assert orjson.loads(predict(**inputs))["error"]["code"] == code


def test_an_unknown_version_is_an_error_of_grpc(predict, images):
    with pytest.raises(grpc.RpcError):
        predict("9.9", data=images[0].tobytes())
