"""Other people's clients against a real TorchServe, used as their documentation uses them."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types.inference_request import InferenceRequest
from open_inference.openapi.types.request_input import RequestInput
from open_inference.openapi.types.request_output import RequestOutput
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from cifar.common.project import ROOT, class_names
from tests.handler.samples import png_of

KSERVE_PYTHON = ROOT / ".venv" / "kserve" / "bin" / "python"  # made by `make test`
LABELS = list(class_names())


@pytest.fixture(scope="module")
def expected(torchserve, images) -> list[dict[str, Any]]:
    """What each image gets alone."""
    return [torchserve.post(image.tobytes(), "application/octet-stream").json() for image in images]


@pytest.fixture
def versioned_url(torchserve) -> str:
    """The base address under which all paths of KServe's protocols are answered."""
    return f"{torchserve.url}/predictions/cifar/1.0"


# tritonclient ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def triton(torchserve):
    with InferenceServerClient(urlsplit(torchserve.url).netloc) as client:
        yield client


def input_of(array: np.ndarray, datatype: str, *, binary: bool = True) -> InferInput:
    tensor = InferInput("INPUT0", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def indices(expected: list[dict[str, Any]]) -> list[int]:
    return [answer["class_index"] for answer in expected]


@pytest.mark.parametrize("binary_output", [True, False, None], ids=["binary out", "JSON out", "default out"])
@pytest.mark.parametrize("binary_input", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_in_every_mode(triton, images, expected, binary_input, binary_output, compression):
    outputs = None
    if binary_output is not None:
        outputs = [InferRequestedOutput(name, binary_data=binary_output) for name in ("class_index", "label")]
    result = triton.infer(
        "cifar",
        [input_of(images, "UINT8", binary=binary_input)],
        outputs=outputs,
        request_id="a1",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert result.get_response()["id"] == "a1"
    assert result.as_numpy("class_index").tolist() == indices(expected)
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]
    assert labels == [LABELS[index] for index in indices(expected)]
    probabilities = result.as_numpy("probabilities")
    if binary_output is None:
        assert probabilities.dtype == np.float32
        assert probabilities.max(axis=1) == pytest.approx([answer["confidence"] for answer in expected], abs=1e-5)
    else:
        assert probabilities is None


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [("INT64", "i8"), ("INT32", "i4"), ("UINT16", "u2"), ("FP16", "f2"), ("FP32", "f4"), ("FP64", "f8")],
)
def test_triton_with_the_types_that_numpy_makes(triton, images, expected, datatype, dtype):
    result = triton.infer("cifar", [input_of(images.astype(dtype), datatype)])
    assert result.as_numpy("class_index").tolist() == indices(expected)


@pytest.mark.parametrize("shape", [(16, 32, 32, 3), (16, 3072)])
def test_triton_with_either_shape(triton, images, expected, shape):
    result = triton.infer("cifar", [input_of(images.reshape(shape), "UINT8")])
    assert result.as_numpy("class_index").tolist() == indices(expected)


def test_triton_with_image_files(triton, images, expected):
    files = np.array([png_of(image) for image in images], dtype=np.object_)
    result = triton.infer("cifar", [input_of(files, "BYTES")])
    assert result.as_numpy("class_index").tolist() == indices(expected)


def test_triton_with_sequences_priority_timeout_and_options(triton, images):
    result = triton.infer(
        "cifar", [input_of(images, "UINT8")], sequence_id=7, sequence_start=True, priority=1, timeout=10_000_000,
        parameters={"top_k": 3},
    )  # fmt: skip
    assert result.as_numpy("top_k_label").shape == (16, 3)


def test_tritons_classification(triton, images, expected):
    outputs = [InferRequestedOutput("probabilities", class_count=2)]
    classes = triton.infer("cifar", [input_of(images, "UINT8")], outputs=outputs).as_numpy("probabilities")
    value, index, label = classes[0][0].decode().split(":")
    assert (int(index), label) == (expected[0]["class_index"], expected[0]["prediction"])
    assert float(value) == pytest.approx(expected[0]["confidence"], abs=1e-5)


def test_tritons_asynchronous_calls(triton, torchserve, images, expected):
    pending = [triton.async_infer("cifar", [input_of(image[None], "UINT8")]) for image in images]
    assert [call.get_result().as_numpy("class_index")[0] for call in pending] == indices(expected)

    async def ask() -> Any:
        async with tritonclient.http.aio.InferenceServerClient(urlsplit(torchserve.url).netloc) as client:
            return await client.infer("cifar", [input_of(images, "UINT8")])

    assert asyncio.run(ask()).as_numpy("class_index").tolist() == indices(expected)


def test_triton_understands_a_rejection(triton, images):
    with pytest.raises(InferenceServerException, match="channels first") as caught:
        triton.infer("cifar", [input_of(images.transpose(0, 3, 1, 2), "UINT8")])
    assert caught.value.status() == "422"


def test_triton_asks_for_health_and_metadata_under_a_version(torchserve, images, expected):
    address = urlsplit(f"{torchserve.url}/predictions/cifar/1.0")
    with InferenceServerClient(address.netloc + address.path) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("cifar")
        assert client.is_model_ready("cifar", "1.0")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("cifar")
        [tensor] = metadata["inputs"]
        assert (metadata["versions"], tensor["shape"]) == (["1.0"], [-1, 32, 32, 3])
        own = InferInput(tensor["name"], [16, *tensor["shape"][1:]], tensor["datatype"])
        own.set_data_from_numpy(images)
        for version in ("", "1.0"):
            result = client.infer("cifar", [own], model_version=version)
            assert result.as_numpy(metadata["outputs"][1]["name"]).tolist() == indices(expected)


def test_without_a_version_health_is_not_answered(triton):
    assert not triton.is_server_live()
    assert not triton.is_server_ready()


# The protocol's own client --------------------------------------------------------------------------------------------


@pytest.fixture
def http():
    with httpx.Client(timeout=60) as client:
        yield client


@pytest.mark.parametrize(("datatype", "scale"), [("INT64", 1), ("UINT8", 1), ("FP32", 1), ("FP32", 255), ("FP64", 255)])
def test_the_protocols_own_client(versioned_url, http, images, expected, datatype, scale):
    numbers = images / scale if scale != 1 else images
    client = OpenInferenceClient(base_url=versioned_url, httpx_client=http)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("cifar")
    client.check_model_version_readiness("cifar", "1.0")
    assert client.read_model_metadata("cifar").versions == ["1.0"]
    tensor = RequestInput(name="input", shape=list(images.shape), datatype=datatype, data=numbers.ravel().tolist())
    answer = client.model_infer("cifar", request=InferenceRequest(inputs=[tensor]))
    assert {output.name: output.data.__root__ for output in answer.outputs}["class_index"] == indices(expected)
    request = InferenceRequest(id="a1", inputs=[tensor], outputs=[RequestOutput(name="label")])
    answer = client.model_version_infer("cifar", "1.0", request=request)
    assert (answer.id, answer.model_version) == ("a1", "1.0")
    assert [output.name for output in answer.outputs] == ["label"]


def test_the_protocols_own_client_without_a_version(torchserve, http, images, expected):
    client = OpenInferenceClient(base_url=torchserve.url, httpx_client=http)
    tensor = RequestInput(name="input", shape=[1, 3072], datatype="UINT8", data=images[0].ravel().tolist())
    answer = client.model_infer("cifar", request=InferenceRequest(inputs=[tensor]))
    assert {output.name: output.data.__root__ for output in answer.outputs}["class_index"] == [
        expected[0]["class_index"]
    ]
    with pytest.raises(ApiError) as caught:
        client.check_server_readiness()
    assert caught.value.status_code == 404


# KServe's SDK ---------------------------------------------------------------------------------------------------------


def test_kserves_sdk(torchserve, versioned_url, images, expected, tmp_path):
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "cat.png").write_bytes(png_of(images[1]))
    command = [KSERVE_PYTHON, Path(__file__).with_name("kserve_client.py"), torchserve.url, versioned_url, tmp_path]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    came = json.loads((tmp_path / "came.json").read_text())
    assert [answer["class_index"] for answer in came["v1"]["predictions"]] == indices([expected[1], expected[0]])
    for binary in ("False", "True"):
        _id, *outputs = came[f"v2, binary {binary}"]
        assert dict(outputs)["class_index"] == indices(expected)
    assert came["v2, image file"] == ["a1", ["label", [expected[1]["prediction"]]]]
    assert [came[name] for name in ("live", "ready", "model ready", "v1 model ready")] == [True] * 4
