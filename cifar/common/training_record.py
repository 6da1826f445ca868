"""What training writes beside the weights that a network is exported from."""

from pathlib import Path
from typing import Any

from cifar.common.errors import InvalidFile
from cifar.common.files import read_json

WEIGHTS_NAME = "best_cnn_model.pth"
RECORD_NAME = "training.json"  # how they were made
EVALUATION_NAME = "evaluation.json"  # how good they are

_ADDED_LATER = {"mirror": False}  # parameters of the network that records of older weights lack


def read_record(weights: Path) -> dict[str, Any] | None:
    """Return how weights were made, from the record beside them; None where there is no such file.

    Raises:
        InvalidFile: it is not what training writes.
    """
    path = weights.parent / RECORD_NAME
    record = read_json(path)
    if record is not None and not isinstance(record.get("model"), dict):
        raise InvalidFile(f"{path} has no section 'model'; it should be the record that training writes")
    return record and record | {"model": _ADDED_LATER | record["model"]}
