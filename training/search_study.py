"""Optuna's study of a search, in a file: opened by one process at a time, checked, and gone on with."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from training.errors import StudyRefused

STUDY_FILE = Path("artifacts/search.db")
STUDY_NAME = "cifar"
RUN_KEY = "mlflow_run"  # attribute of the study and of each trial: its run
_SETTINGS = "settings"  # attribute of the study: what its figures depend on
_REDOES = "redoes"  # attribute of a trial: number of the one that did not come to its end


@contextmanager
def open_study(file: Path, settings: dict[str, Any], fresh: bool = False) -> Iterator[optuna.Study]:
    """Open the study of a file, or begin it; no other search can open it meanwhile.

    Args:
        file: of SQLite.
        settings: what the figures of all its trials depend on: data, space, and what the trials share.
        fresh: drop the study that the file holds.

    Raises:
        StudyRefused: another search has it open, it was begun with other settings, or the file cannot be used; the
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
    """Return the trial with the best figure; None where none came to its end."""
    return study.best_trial if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) else None


def redo_unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """Queue the values of trials that a signal, an error or the end of the process cut short.

    Optuna's heartbeats are for several processes that share a study: they tell a dead trial from a slow one after
    minutes. Here a trial that is still running belongs to a process that is gone, as the file is ours alone.

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
    then = then or {}
    changed = [key for key in settings | then if settings.get(key) != then.get(key)]
    if changed:
        differences = "; ".join(f"{key}: {then.get(key)} then, {settings.get(key)} now" for key in changed)
        raise StudyRefused(
            f"{file} is a search with other settings, whose figures cannot be compared ({differences}); go on with "
            "those settings, name another file with --study, or drop that search with --fresh"
        )


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a lock beside the file; the system drops it with the process, however that ends."""
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyRefused(
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
        raise StudyRefused(
            f"{file} cannot be used for the study: {reason}; remove it, or name another file with --study"
        ) from error
