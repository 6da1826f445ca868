"""What a training run shows: a bar while an epoch runs, a line when it is done."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.command import console


class EpochProgress:
    """A bar over the pictures of one epoch, with loss, accuracy and pictures a second.

    Args:
        epoch: 1 is the first.
        epochs: at most so many.
        images: in one epoch.
    """

    def __init__(self, epoch: int, epochs: int, images: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._progress = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(f"epoch {epoch}/{epochs}", total=images, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, seen: int, loss: float, accuracy: float) -> None:
        """Move the bar to `seen` pictures; mean loss and accuracy (0-1) of the epoch so far."""
        speed = self._progress.tasks[self._task].speed or 0.0
        figures = f"loss {loss:.3f}  accuracy {accuracy:.1%}  {speed:,.0f} images/s"
        self._progress.update(self._task, completed=seen, figures=figures)


def epoch_line(epoch: int, figures: dict[str, float], best: bool) -> str:
    """Return one line for a finished epoch, from the names of figures that training logs."""
    return (
        f"epoch {epoch:3d}  "
        f"train loss {figures['train_loss']:.3f} accuracy {figures['train_accuracy']:.1%}  "
        f"validation loss {figures['validation_loss']:.3f} accuracy {figures['validation_accuracy']:.2%}  "
        f"lr {figures['learning_rate']:.1e}  {figures['images_per_second']:,.0f} images/s{'  best' if best else ''}"
    )
