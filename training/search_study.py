"""Optuna's study of a search: its file, opened by one process at a time and resumed, and what is printed of it."""

import fcntl
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from cifar.common.console import console
from training.errors import StudyRejected
from training.params import current_name
from training.search_space import as_overrides

STUDY_FILE = Path("artifacts/search.db")
STUDY_NAME = "cifar"
RUN_KEY = "mlflow_run"  # attribute of the study and of each trial: its run
_SETTINGS = "settings"  # attribute of the study: what its metrics depend on
_REDOES = "redoes"  # attribute of a trial: number of the one that did not come to its end
REASON_KEY = "reason"  # attribute of a trial: why it could not be trained
_SHOWN = 5  # trials in the table: the best ones


@contextmanager
def open_study(file: Path, settings: dict[str, Any], fresh: bool = False) -> Iterator[optuna.Study]:
    """Open the study of a file, or begin it; no other search can open it meanwhile.

    Args:
        file: of SQLite.
        settings: what the metrics of all its trials depend on: data, space, and what the trials share.
        fresh: drop the study that the file holds.

    Raises:
        StudyRejected: another search has it open, it was begun with other settings, or the file cannot be used; the
            last one also from inside the block.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a search shows its trials itself
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file), _storage_errors(file):
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        try:
            if fresh:
                with suppress(KeyError):  # there is none
                    optuna.delete_study(study_name=STUDY_NAME, storage=storage)
            study = optuna.create_study(
                study_name=STUDY_NAME, storage=storage, direction="maximize", load_if_exists=True
            )
            _check_settings(study, file, settings)
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: those that came to their end, and those that were pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the trial with the best metric; None where none came to its end."""
    return study.best_trial if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) else None


def redo_unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """Queue the values of trials that a signal, an error or the end of the process cut short.

    Optuna's heartbeats are for several processes that share a study: they distinguish a dead trial from a slow one
    after minutes. Here a trial that is still running belongs to a process that is gone, as the file is ours alone.

    Returns:
        The trials that looked as if they were running.
    """
    running = study.get_trials(states=(TrialState.RUNNING,))
    for trial in running:
        study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    redone = {trial.user_attrs.get(_REDOES) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.number not in redone:
            study.enqueue_trial(trial.params, user_attrs={_REDOES: trial.number})
    return running


def _check_settings(study: optuna.Study, file: Path, settings: dict[str, Any]) -> None:
    then = study.user_attrs.get(_SETTINGS)
    if then is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_SETTINGS, settings)
        return
    then = {current_name(key): value for key, value in (then or {}).items()}
    changed = [key for key in settings | then if settings.get(key) != then.get(key)]
    if changed:
        differences = "; ".join(f"{key}: {then.get(key)} then, {settings.get(key)} now" for key in changed)
        raise StudyRejected(
            f"{file} is a search with other settings, whose metrics cannot be compared ({differences}); resume with "
            "those settings, name another file with --study, or drop that search with --fresh"
        )


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a lock beside the file; the system drops it with the process, however that ends."""
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyRejected(
                f"another search is at work on {file}; wait for its end, or name another file with --study"
            ) from None
        yield


@contextmanager
def _storage_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = getattr(cause, "orig", None) or cause or error  # without the SQL
        raise StudyRejected(
            f"{file} cannot be used for the study: {reason}; remove it, or name another file with --study"
        ) from error


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
