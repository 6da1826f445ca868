"""An exported network with what stands beside its weights, checked to be of one and the same training."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch

from cifar.archives.model_file import METADATA_NAME
from cifar.common.files import digest_file, read_json
from cifar.common.training_record import EVALUATION_NAME, RECORD_NAME, read_record
from training.errors import RegistrationRefused


@dataclass(frozen=True)
class ExportedModel:
    """What `load_exported_model` found.

    Attributes:
        model: the TorchScript file.
        digest: SHA-256 of its bytes.
        metadata: what rides inside it: class names, archive version, where it comes from.
        weights: the state dict that it was made of.
        record: how they were trained.
        evaluation: how good they are on the test images.
    """

    model: Path
    digest: str
    metadata: dict[str, Any]
    weights: Path
    record: dict[str, Any]
    evaluation: dict[str, Any]


def load_exported_model(weights: Path, model: Path) -> ExportedModel:
    """Read a TorchScript file, and the record and the figures beside the weights that it was made of.

    Raises:
        RegistrationRefused: one of them is missing, or they are not of the same weights.
        WeightsError: the record or the figures cannot be read.
    """
    export = shlex.join(["python", "-m", "training.export", "--weights", str(weights), "--output", str(model)])
    evaluate = shlex.join(["python", "-m", "training.evaluate", "--weights", str(weights)])
    _require_file(weights, "make train")
    _require_file(model, export)
    record, evaluation = read_record(weights), read_json(weights.parent / EVALUATION_NAME)
    if record is None:
        raise RegistrationRefused(
            f"{weights.parent / RECORD_NAME} is missing; training writes it, and it must be copied with the weights"
        )
    if evaluation is None:
        raise RegistrationRefused(f"{weights.parent / EVALUATION_NAME} is missing; make it: {evaluate}")
    metadata, digest = read_metadata(model), digest_file(weights)
    _require_weights(model, metadata, weights, digest, export)
    _require_weights(weights.parent / EVALUATION_NAME, evaluation, weights, digest, evaluate)
    for key in ("mlflow_run", "git_commit", "data_digest"):
        if metadata.get(key) != record.get(key):
            raise RegistrationRefused(
                f"{model} says {key} {metadata.get(key)}, {weights.parent / RECORD_NAME} says {record.get(key)}: they "
                f"are of two trainings. Bring the record that belongs to the weights, or export again: {export}"
            )
    return ExportedModel(model, digest_file(model), metadata, weights, record, evaluation)


def read_metadata(model: Path) -> dict[str, Any]:
    """Return the metadata inside a TorchScript file; raises RegistrationRefused where this project did not write it."""
    extra = {METADATA_NAME: ""}
    try:
        torch.jit.load(str(model), map_location="cpu", _extra_files=extra)
        metadata = orjson.loads(extra[METADATA_NAME])
    except (RuntimeError, ValueError) as error:  # not TorchScript; no metadata, or none that is JSON
        raise RegistrationRefused(f"{model} is no file of this project's export, or a truncated one: {error}") from None
    if not isinstance(metadata, dict):
        raise RegistrationRefused(f"{model} holds a {type(metadata).__name__} as {METADATA_NAME}; expected an object")
    return metadata


def _require_file(path: Path, command: str) -> None:
    if not path.is_file():
        raise RegistrationRefused(f"{path} is missing; make it: {command}")


def _require_weights(path: Path, content: dict[str, Any], weights: Path, digest: str, command: str) -> None:
    if content.get("weights_digest") != digest:
        raise RegistrationRefused(
            f"{path} is of weights {str(content.get('weights_digest'))[:12]}…, {weights} is {digest[:12]}…; "
            f"make it anew: {command}"
        )
