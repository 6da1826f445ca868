"""What training writes beside the weights that a network is exported from."""

from pathlib import Path
from typing import Any

from cifar.common.errors import InvalidFile
from cifar.common.files import read_json

WEIGHTS_NAME = "best_cnn_model.pth"
RECORD_NAME = "training.json"  # how they were made
EVALUATION_NAME = "evaluation.json"  # how good they are

_ADDED_LATER = {"flip_tta": False}  # parameters of the network that records of older weights lack
_RENAMED = {"model": {"mirror": "flip_tta"}, "train": {"average_decay": "ema_decay"}}  # in records of older weights


def read_record(weights: Path) -> dict[str, Any] | None:
    """Return how weights were made, from the record beside them; None where there is no such file.

    Raises:
        InvalidFile: it is not what training writes.
    """
    path = weights.parent / RECORD_NAME
    record = read_json(path)
    if record is not None and not isinstance(record.get("model"), dict):
        raise InvalidFile(f"{path} has no section 'model'; it should be the record that training writes")
    if record is None:
        return None
    for section, renamed in _RENAMED.items():
        if isinstance(record.get(section), dict):
            record[section] = {renamed.get(key, key): value for key, value in record[section].items()}
    record["model"] = _ADDED_LATER | record["model"]
    return record
