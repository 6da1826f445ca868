"""Weights files: what is in one, how to write it, and the network that fits it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.atomic_write import atomic_write
from training.errors import WeightsError
from training.json_file import read_json
from training.model import IMAGE_SIZE, Classifier, ModelParams, build_classifier
from training.params import overrides_of, params_from

WEIGHTS_FILE = Path("artifacts/best_cnn_model.pth")
RECORD_NAME = "training.json"  # beside the weights: how they were made
_ADDED_LATER = {"mirror": False}  # parameters of the network that records of older weights lack


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
    """Read a state dict, without running code that a pickle may carry.

    Raises:
        WeightsError: missing, unreadable, or something other than named tensors.
    """
    weights = load_tensors(path)
    if not weights or not all(isinstance(name, str) and isinstance(weights[name], Tensor) for name in weights):
        raise WeightsError(f"{path} holds no state dict; save one with torch.save(network.state_dict(), path)")
    return weights


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a file of torch.save that holds a dict of tensors and plain values; raises WeightsError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; make it: make train") from None
    except Exception as error:  # damage makes PyTorch's unpickler raise nearly anything
        raise WeightsError(f"{path} is no weights file, or a truncated one: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}; expected a state dict (named tensors)")
    return content


def read_record(weights: Path) -> dict[str, Any] | None:
    """Return how the weights were made, from `training.json` beside them; None where there is no such file."""
    path = weights.parent / RECORD_NAME
    record = read_json(path)
    if record is not None and not isinstance(record.get("model"), dict):
        raise WeightsError(f"{path} has no section 'model'; it should be the record that training writes")
    return record and record | {"model": _ADDED_LATER | record["model"]}


def load_classifier(path: Path, overrides: Sequence[str] = ()) -> Classifier:
    """Build the classifier that fits a weights file, and load it, ready to predict.

    Its parameters are those of `find_params`; the record's temperature is set.

    Args:
        path: the state dict.
        overrides: `model.key=value`, on top.

    Raises:
        WeightsError: unreadable, or the tensors do not fit the network.
        ParameterError: an override is refused.
    """
    params = find_params(path, overrides)
    classifier = build_classifier(params)
    try:
        classifier.network.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit {params.name}: {error}") from None
    classifier.temperature = (read_record(path) or {}).get("temperature", 1.0)
    return classifier.eval()


def find_params(path: Path, overrides: Sequence[str] = ()) -> ModelParams:
    """Return the parameters of the network that a weights file is of.

    They come from the record beside it; weights trained elsewhere have none, and theirs are read off the shapes. Those
    that shapes do not tell (activation, mean, std) have this project's defaults, but for the order of pool and
    normalisation, which is the usual one. Arguments and errors are those of `load_classifier`.
    """
    weights, record = load_weights(path), read_record(path)
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
