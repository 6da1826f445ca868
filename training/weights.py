"""Weights and checkpoints: what is in a file, how it is written, and the network that fits it."""

import argparse
import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar.common.console import console
from cifar.common.files import atomic_write
from cifar.common.project import IMAGE_SIZE
from cifar.common.training_record import WEIGHTS_NAME, read_record
from training.errors import WeightsError
from training.external_checkpoint import find_state_dict, name_kind
from training.model import Classifier, ModelParams, build_classifier
from training.params import current_name, overrides_of, params_from

WEIGHTS_FILE = Path("artifacts") / WEIGHTS_NAME
CHECKPOINT_NAME = "checkpoint.pt"  # beside the weights
_MAX_FILE_BYTES = 1_000_000_000  # with an optimizer's state; the widest network here has 40 MB
_MAX_NAMES_BYTES = 16_000_000  # the pickle without its tensors' data: 100,000 tensors
_SHOWN_CHARACTERS = 300


def save_weights(weights: Mapping[str, Tensor], path: Path = WEIGHTS_FILE) -> None:
    """Write a network's state dict, whole or not at all; it loads with `torch.load(path, weights_only=True)`."""
    write_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)


def write_tensors(content: Mapping[str, Any], path: Path) -> None:
    """Write what `load_tensors` reads, whole or not at all."""
    buffer = io.BytesIO()  # PyTorch's own writer answers a full disk with a RuntimeError or the end of the process
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, without running code that a pickle may carry; external checkpoints are unwrapped.

    Raises:
        WeightsError: missing, unreadable, or something other than the named tensors of one network.
    """
    return find_state_dict(load_tensors(path), path)[0]


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a file of torch.save that holds a dict of tensors and plain values; raises WeightsError."""
    try:
        _check_size(path)
        # Training scripts like to save their arguments too; a Namespace is a bag of names, and runs nothing.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # about kinds of files that are named below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; make it: make train") from None
    except WeightsError:
        raise
    except Exception as error:  # damage makes PyTorch's unpickler raise nearly anything
        kind = _name_kind(path) or f"is no weights file, or a truncated one: {_one_line(error)}"
        raise WeightsError(f"{path} {kind}") from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}; expected a state dict (named tensors): "
            "torch.save(network.state_dict(), path)"
        )
    return content


def _check_size(path: Path) -> None:
    """Reject what is no file of a small network before anything is unpacked: an entry may be compressed."""
    size = path.stat().st_size
    if path.is_file() and size <= _MAX_FILE_BYTES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        size = max(size, sum(entry.file_size for entry in entries))
        names = max((entry.file_size for entry in entries if entry.filename.endswith("data.pkl")), default=0)
        if names > _MAX_NAMES_BYTES:
            raise WeightsError(
                f"{path} has {names:,} bytes of names, expected at most {_MAX_NAMES_BYTES:,}: the checkpoint of one "
                "network. Save it by itself: torch.save(network.state_dict(), path)"
            )
    if size > _MAX_FILE_BYTES:
        raise WeightsError(
            f"{path} has {size:,} bytes, unpacked, expected at most {_MAX_FILE_BYTES:,}: networks here have some "
            "megabytes. Save the network by itself: torch.save(network.state_dict(), path)"
        )
    if not path.is_file():
        raise WeightsError(f"{path} {name_kind(path)}")


def _name_kind(path: Path) -> str | None:
    try:
        return name_kind(path)
    except Exception:  # damage of whatever kind; PyTorch's own words remain
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN_CHARACTERS] or type(error).__name__


def load_classifier(path: Path, overrides: Sequence[str] = ()) -> Classifier:
    """Build the classifier that fits a weights file, and load it, ready to predict.

    Its parameters are those of `find_params`; the record's temperature is set.

    Args:
        path: the state dict, or an external checkpoint that holds it; what was taken of one is printed.
        overrides: `model.key=value`, on top.

    Raises:
        WeightsError: unreadable, or the tensors do not fit the network.
        ParameterError: an override is rejected.
    """
    weights, note = find_state_dict(load_tensors(path), path)
    params = _params_of(weights, path, overrides)
    classifier = build_classifier(params)
    try:
        classifier.network.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit {params.name}: {_one_line(error)}") from None
    if note is not None:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    classifier.temperature = (read_record(path) or {}).get("temperature", 1.0)
    return classifier.eval()


def find_params(path: Path, overrides: Sequence[str] = ()) -> ModelParams:
    """Return the parameters of the network that a weights file is of.

    They come from the record beside it; external checkpoints have none, and theirs are read off the shapes. Those
    that shapes do not show (activation, mean, std) have this project's defaults, but for the order of pool and
    normalisation, which is the usual one. Arguments and errors are those of `load_classifier`.
    """
    return _params_of(load_weights(path), path, overrides)


def _params_of(weights: Mapping[str, Tensor], path: Path, overrides: Sequence[str]) -> ModelParams:
    record = read_record(path)
    values = record["model"] if record else params_of_shapes(weights, path)
    return params_from(ModelParams, values | overrides_of("model", overrides))


def params_of_shapes(weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Read the network's parameters off its tensors' shapes; raises WeightsError where they are of another one."""
    needed = {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}
    if not needed <= weights.keys():
        raise WeightsError(f"{path} is of another network: it lacks {', '.join(sorted(needed - weights.keys()))}")
    improved = "conv3.weight" in weights
    layers = 3 if improved else 2
    for name in sorted(needed | {f"conv{layers}.weight"}):
        shape = tuple(weights[name].shape)
        if len(shape) != (4 if name.startswith("conv") else 2) or 0 in shape:
            raise WeightsError(f"{path} is of another network: {name} has the shape {shape}")
    filters = [weights[f"conv{layer}.weight"].shape[0] for layer in range(1, layers + 1)]
    hidden_width, features = weights["fc1.weight"].shape
    return plain_values(ModelParams(name="ImprovedCNN" if improved else "SimpleCNN")) | {
        "filters": filters,
        "kernel_size": weights["conv1.weight"].shape[-1],
        "pool_size": _pool_size(features / filters[-1], layers, path),
        "hidden_width": hidden_width,
        "batch_norm": "bn1.weight" in weights,
        "pool_first": False,  # the usual order
    }


def plain_values(params: ModelParams) -> dict[str, Any]:
    """Return the parameters as they stand in params.yaml."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(params).items()}


def _pool_size(area: float, layers: int, path: Path) -> int:
    """Return the pool that leaves `area` pixels of 32×32."""
    for pool_size in range(1, IMAGE_SIZE + 1):
        side = IMAGE_SIZE
        for _ in range(layers):
            side //= pool_size
        if side**2 == area:
            return pool_size
    raise WeightsError(f"{path}: fc1 reads {area:g} positions a channel, which no pooling of 32×32 pixels leaves")


@dataclass
class Checkpoint:
    """The state after a whole epoch. A stop in the middle of an epoch loses that epoch's part and nothing else."""

    settings: dict[str, Any]  # parameters and data digest: a resumed run must have the same
    run_id: str  # of MLflow
    history: list[dict[str, float]]  # one row an epoch
    best_epoch: int  # 1 is the first
    best_weights: dict[str, Tensor]
    best_temperature: float
    network: dict[str, Any]
    ema: dict[str, Any] | None  # moving average of the weights, where there is one
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    generator: Tensor  # order and augmentation
    torch_random: Tensor  # dropout on the CPU
    cuda_random: Tensor | None  # dropout on the GPU

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_tensors({field.name: getattr(self, field.name) for field in fields(self)}, path)


def load_checkpoint(path: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """Read the checkpoint of an interrupted run with the same settings; None where there is none.

    Raises:
        WeightsError: unreadable, or of a run with other settings, which the message names.
    """
    if not path.exists():
        return None
    advice = "start over: --fresh, or delete it"
    try:
        content = load_tensors(path)
    except WeightsError as error:
        raise WeightsError(f"{error}; {advice}") from error
    content = {"ema" if name == "average" else name: value for name, value in content.items()}  # as it was called
    names = {field.name for field in fields(Checkpoint)}
    if content.keys() != names:
        raise WeightsError(f"{path} is no checkpoint of this version of the code; {advice}")
    checkpoint = Checkpoint(**content)
    then = checkpoint.settings = {current_name(key): value for key, value in checkpoint.settings.items()}
    changed = [key for key in settings | then if settings.get(key) != then.get(key)]
    if changed:
        differences = ", ".join(f"{key} {then.get(key)} then, {settings.get(key)} now" for key in changed)
        raise WeightsError(
            f"{path} is of a run with other settings ({differences}), interrupted after epoch "
            f"{len(checkpoint.history)}; resume with those settings, or {advice}"
        )
    return checkpoint
