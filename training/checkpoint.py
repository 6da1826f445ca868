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
    best_temperature: float
    network: dict[str, Any]
    average: dict[str, Any] | None  # of the weights, where they are averaged
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
    names = {field.name for field in fields(Checkpoint)}
    if content.keys() != names:
        raise WeightsError(f"{path} is no checkpoint of this version of the code; {advice}")
    checkpoint = Checkpoint(**content)
    then = checkpoint.settings
    changed = [key for key in settings | then if settings.get(key) != then.get(key)]
    if changed:
        differences = ", ".join(f"{key} {then.get(key)} then, {settings.get(key)} now" for key in changed)
        raise WeightsError(
            f"{path} is of a run with other settings ({differences}), interrupted after epoch "
            f"{len(checkpoint.history)}; go on with those settings, or {advice}"
        )
    return checkpoint
