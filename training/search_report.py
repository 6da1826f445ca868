"""What a search shows: a bar, a line for each trial, and a table at the end."""

import shlex
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cifar.common.console import console
from training.search_space import as_overrides
from training.search_study import best_trial, ended_trials

REASON_KEY = "reason"  # attribute of a trial: why it could not be trained
_SHOWN = 5  # trials in the table: the best ones


class SearchProgress:
    """A bar over the trials of a search, above the one of the epoch, and a line for each trial that is over.

    Args:
        trials: in all.
    """

    def __init__(self, trials: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
        )
        self._progress = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._progress.add_task("trials", total=trials, best="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, study: optuna.Study) -> None:
        """Move the bar to what the study holds."""
        best = best_trial(study)
        text = f"best {best.value:.2%}" if best else ""
        self._progress.update(self._task, completed=len(ended_trials(study)), best=text)

    def tell(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print the line of a trial that is over."""
        best = best_trial(study)
        mark = "  best" if best and best.number == trial.number else ""
        print_line(f"trial {trial.number:3d}  {_outcome(trial)}  {_short(trial.params)}{mark}")


def print_results(study: optuna.Study, data_options: Sequence[str], shared: Sequence[str]) -> None:
    """Print the best trials, and the command that trains with the best values.

    Args:
        study: with its trials.
        data_options: of the command line, such as `--data other.npz`.
        shared: overrides of `train` and `model` that all trials had.
    """
    trials = ended_trials(study)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    failed = sum(REASON_KEY in trial.user_attrs for trial in trials)
    pruned = len(trials) - len(complete) - failed
    print_line(f"{len(trials)} trials: {len(complete)} to their end, {pruned} pruned, {failed} could not be trained")
    best = best_trial(study)
    if best is None:
        return
    console.print(_table(sorted(complete, key=lambda trial: -(trial.value or 0))[:_SHOWN]))
    print_line(f"best: trial {best.number}, validation accuracy {best.value:.2%}. To train with its values:")
    print_line(shlex.join(["python", "-m", "training.train", *shared, *as_overrides(best.params), *data_options]))


def print_line(text: str, style: str | None = None) -> None:
    """Print text as it stands: unbroken, so that it can be copied."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _table(trials: Sequence[FrozenTrial]) -> Table:
    """A column a trial: six parameters side by side do not fit a terminal of 80 columns."""
    table = Table("", *(f"trial {trial.number}" for trial in trials), box=SIMPLE_HEAD)
    table.add_row("validation accuracy", *(f"{trial.value:.2%}" for trial in trials))
    table.add_row("epochs", *(str(len(trial.intermediate_values)) for trial in trials))
    for key in trials[0].params:
        table.add_row(key, *(_short_value(trial.params[key]) for trial in trials))
    return table


def _outcome(trial: FrozenTrial) -> str:
    epochs = len(trial.intermediate_values)
    if trial.state == TrialState.COMPLETE:
        return f"{trial.value:.2%} after {epochs} epochs"
    if trial.state == TrialState.PRUNED:
        return trial.user_attrs.get(REASON_KEY) or f"pruned after epoch {epochs} with {trial.value:.2%}"
    return "stopped"


def _short(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_short_value(value)}" for key, value in values.items())


def _short_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
