"""Run by the Python of .venv/kserve: KServe's own client, used as its documentation shows; writes what came.

Its pins contradict this project's (protobuf, psutil), so that it has a virtual environment of its own.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def ask(url: str, versioned_url: str, images: np.ndarray, png: bytes) -> dict[str, Any]:
    v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=1, timeout=30))
    v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=1, timeout=30))
    came: dict[str, Any] = {}

    instances = {"instances": [{"image_bytes": {"b64": base64.b64encode(png).decode()}}, images[0].tolist()]}
    came["v1"] = await v1.infer(url, instances, model_name="cifar")

    for binary in (False, True):
        tensor = InferInput("input-0", list(images.shape), "FP32")
        tensor.set_data_from_numpy(images.astype(np.float32), binary_data=binary)
        response = await v2.infer(url, InferRequest("cifar", [tensor]), model_name="cifar")
        came[f"v2, binary {binary}"] = [response.id, *map(describe, response.outputs)]

    files = InferInput("input-0", [1], "BYTES")
    files.set_data_from_numpy(np.array([png], dtype=np.object_), binary_data=True)
    wanted = [RequestedOutput("label", parameters={"binary_data": True})]
    response = await v2.infer(
        url, InferRequest("cifar", [files], request_id="a1", request_outputs=wanted), model_name="cifar"
    )
    came["v2, image file"] = [response.id, *map(describe, response.outputs)]

    came["live"] = await v2.is_server_live(versioned_url)
    came["ready"] = await v2.is_server_ready(versioned_url)
    came["model ready"] = await v2.is_model_ready(versioned_url, "cifar")
    came["v1 model ready"] = await v1.is_model_ready(versioned_url, "cifar")
    return came


def describe(output: Any) -> list[Any]:
    return [output.name, output.as_numpy().tolist()]


if __name__ == "__main__":
    url, versioned_url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    images, png = np.load(folder / "images.npy"), (folder / "cat.png").read_bytes()
    (folder / "came.json").write_text(json.dumps(asyncio.run(ask(url, versioned_url, images, png))))
