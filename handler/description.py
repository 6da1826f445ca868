"""What the model says of itself: where it comes from, and what one request may hold."""

from collections.abc import Mapping
from typing import Any

from answers import AnsweringModel
from decoding import BODY_KINDS
from pictures import MAX_PIXELS
from pixels import MAX_IMAGES
from request_options import MAX_TOP_K

# What rides inside the TorchScript file (training/export.py); one that is not known is null.
_METADATA_KEYS = ("git_commit", "data_digest", "mlflow_run", "accuracy", "weights_digest")


def describe_model(model: AnsweringModel, digest: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
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
