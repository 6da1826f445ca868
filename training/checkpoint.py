"""Everything that a training run needs to go on where it was, in one file."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from training.errors import WeightsError
from training.weights import load_tensors, write_tensors

CHECKPOINT_NAME = "checkpoint.pt"  # beside the weights


@dataclass
class Checkpoint:
    """The state after a whole epoch. A stop in the middle of an epoch loses that epoch's part and nothing else."""

    settings: dict[str, Any]  # parameters and data digest: a resumed run must have the same
    run_id: str  # of MLflow
    history: list[dict[str, float]]  # one row an epoch
    best_epoch: int  # 1 is the first
    best_weights: dict[str, Tensor]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    generator: Tensor  # order and augmentation
    torch_random: Tensor  # dropout on the CPU

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_tensors({field.name: getattr(self, field.name) for field in fields(self)}, path)


def load_checkpoint(path: Path, settings: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint of a run with the same settings.

    Raises:
        WeightsError: missing, unreadable, or of a run with other settings, which the message names.
    """
    if not path.exists():
        raise WeightsError(f"{path} is missing: there is no interrupted run to resume; start one without --resume")
    content = load_tensors(path)
    names = {field.name for field in fields(Checkpoint)}
    if content.keys() != names:
        raise WeightsError(f"{path} is no checkpoint of this version; start again without --resume")
    checkpoint = Checkpoint(**content)
    then = checkpoint.settings
    changed = [key for key in settings if settings[key] != then.get(key)]
    if changed:
        differences = ", ".join(f"{key} {then.get(key)} then, {settings[key]} now" for key in changed)
        raise WeightsError(f"{path} is of a run with other settings ({differences}); use those, or drop --resume")
    return checkpoint
