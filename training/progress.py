"""What a training run shows: a bar while an epoch runs, a line when it is done."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from cifar.common.console import console

_REFRESH_S = 0.1


class EpochProgress:
    """A bar over the images of one epoch, with loss, accuracy and images a second.

    Args:
        epoch: 1 is the first.
        epochs: the most there may be.
        images: in one epoch.
        show: whether the bar is shown; False for all but one of several processes.
    """

    def __init__(self, epoch: int, epochs: int, images: int, show: bool = True) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
        )
        self._progress = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (console.is_terminal and show),
        )
        self._next = 0.0
        self._task = self._progress.add_task(f"epoch {epoch}/{epochs}", total=images, metrics="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, seen: int, totals: Tensor) -> None:
        """Move the bar to `seen` images; `totals` is the sum of their losses and how many were right, (2,)."""
        if self._progress.disable or time.monotonic() < self._next:
            return  # reading the totals would wait for the GPU
        self._next = time.monotonic() + _REFRESH_S
        loss, right = (totals / seen).tolist()
        speed = self._progress.tasks[self._task].speed or 0.0
        metrics = f"loss {loss:.3f}  accuracy {right:.1%}  {speed:,.0f} images/s"
        self._progress.update(self._task, completed=seen, metrics=metrics)


def epoch_line(epoch: int, metrics: dict[str, float], best: bool) -> str:
    """Return one line for a finished epoch, from the names of metrics that training logs."""
    return (
        f"epoch {epoch:3d}  "
        f"train loss {metrics['train_loss']:.3f} accuracy {metrics['train_accuracy']:.1%}  "
        f"validation loss {metrics['validation_loss']:.3f} accuracy {metrics['validation_accuracy']:.2%}  "
        f"lr {metrics['learning_rate']:.1e}  {metrics['images_per_second']:,.0f} images/s{'  best' if best else ''}"
    )
