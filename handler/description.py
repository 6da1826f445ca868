"""What the model says of itself: where it comes from, and what one request may hold."""

from collections.abc import Mapping
from typing import Any

from answers import ModelInfo
from decoding import BODY_KINDS
from pictures import MAX_PIXELS
from pixels import MAX_IMAGES
from request_options import MAX_TOP_K

# What rides inside the TorchScript file (training/export.py); one that is not known is null.
_METADATA_KEYS = ("git_commit", "data_digest", "mlflow_run", "accuracy", "weights_digest")


def describe_model(model: ModelInfo, digest: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what `GET /models/cifar?customized=true` answers.

    Args:
        model: whose name and class names.
        digest: the value of the header X-Model-Digest.
        metadata: metadata.json of the TorchScript file; empty where it has none.
    """
    return {
        "name": model.name,
        "version": model.version,
        "model_digest": digest,
        "class_names": list(model.labels),
        **{key: metadata.get(key) for key in _METADATA_KEYS},
        "limits": {
            "body_kinds": list(BODY_KINDS),
            "max_images": MAX_IMAGES,
            "max_pixels": MAX_PIXELS,
            "min_top_k": 1,
            "max_top_k": MAX_TOP_K,
            "max_values": [1, 255],
        },
    }


def describe_paths(model: ModelInfo) -> dict[str, dict[str, Any]]:
    """Collect what clients of KServe's protocols ask beside predictions: address after the version to answer.

    TorchServe hands on what follows the version in /predictions/cifar/1.0/…, and so answers only a worker that serves.

    Args:
        model: whose name, version and number of classes.
    """
    name, version, classes = model.name, model.version, len(model.labels)
    metadata = {
        "name": name,
        "versions": [version],
        "platform": "pytorch_torchscript",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "class_index", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        ],
    }
    server = {"name": "torchserve", "version": version, "extensions": ["binary_tensor_data", "classification"]}
    answers: dict[str, dict[str, Any]] = {
        "v2": server,
        "v2/health/live": {"live": True},
        "v2/health/ready": {"ready": True},
        f"v1/models/{name}": {"name": name, "ready": True},
        "v1/models": {"models": [name]},
    }
    for path in (f"v2/models/{name}", f"v2/models/{name}/versions/{version}"):
        answers |= {path: metadata, f"{path}/ready": {"name": name, "ready": True}}
    return answers
