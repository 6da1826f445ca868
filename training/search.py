"""A search for better parameters: trials of training runs by Optuna, in MLflow as runs inside the search's run.

`python -m training.search`; what is searched, and how, is the section `search` of params.yaml.

A trial's metric is the validation accuracy of the epoch whose weights `train` would keep, the one with the lowest
validation loss. Not that loss itself: label smoothing and dropout move it while as many images are classified
correctly, and the temperature, which is fitted afterwards, moves it back.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import optuna
import torch
import typer
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from cifar.common.console import run_stage
from training.data import DATA_FILE, Dataset, load_dataset
from training.distributed import ProcessGroup
from training.errors import ParameterError, TrainingDiverged
from training.interrupt import StopSignals
from training.model import ModelParams
from training.optimization import TrainParams
from training.params import check_sections, load_params
from training.search_space import SearchParams, SearchSpace, as_overrides, load_search_params
from training.search_study import (
    REASON_KEY,
    RUN_KEY,
    STUDY_FILE,
    SearchProgress,
    best_trial,
    ended_trials,
    open_study,
    print_line,
    print_results,
    redo_unfinished,
)
from training.tracking import RunLog, TrackedRun, git_commit, has_run
from training.trainer import Trainer

# Below so many trials that came to their end, importances are mostly noise: Optuna advises 5 in the best part.
_LEAST_FOR_IMPORTANCE = 20
_BEST_PART = 0.25
# What one trial's values may cause, and which is no reason to end the search.
_NOT_TRAINABLE = (TrainingDiverged, ParameterError, torch.OutOfMemoryError)


def search(study: optuna.Study, dataset: Dataset, space: SearchSpace, params: SearchParams) -> bool:
    """Run trials until the study has `params.trials` of them, or until a signal.

    A search that was interrupted, in whatever way, continues with the trials of one that nothing interrupted: the trial
    that was cut short begins again with its values, and what the sampler draws depends on the trials before alone.

    Args:
        study: new, or with trials of this space, data set and shared parameters (`open_study` checks that).
        dataset: the test part is not looked at.
        space: what the trials draw, and what they share.
        params: how many trials, how long, and when they are pruned.

    Returns:
        Whether all trials are there.

    Raises:
        TrackingError: MLflow's store cannot be used, or lacks the search's run.
    """
    study.pruner = _pruner(params)
    with StopSignals() as stop, TrackedRun(study.user_attrs.get(RUN_KEY), name="search") as run:
        if RUN_KEY not in study.user_attrs:
            _begin(study, run, dataset, space, params)
        for cut in redo_unfinished(study):
            _end_run_of_cut(cut, run)
        with SearchProgress(params.trials) as progress:
            while len(ended_trials(study)) < params.trials and not stop.received:
                progress.show(study)
                # The sampler of one trial: a single one would draw its first numbers again after an interruption.
                seed = params.seed + len(ended_trials(study))
                study.sampler = TPESampler(n_startup_trials=params.random_trials, seed=seed)
                trial = study.ask(dict(space.distributions))
                _run_trial(study, trial, _TrialSetup(dataset, space, run, stop))
                progress.tell(study, study.trials[trial.number])
                _log_best(study, run)
        finished = len(ended_trials(study)) >= params.trials
        if finished:
            run.log_metrics(_importances(study))
        else:
            run.mark_stopped()
    return finished


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="search.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    study: Annotated[Path, typer.Option(help="the file of the study; a search that it holds is resumed")] = STUDY_FILE,
    fresh: Annotated[bool, typer.Option("--fresh", help="drop the search that the file holds, and start over")] = False,
) -> None:
    """Search for better values of the parameters in search.space; an interrupted search is resumed."""
    given = overrides or []
    check_sections(given, SearchParams, TrainParams, ModelParams)
    params = load_search_params(given)
    train = dataclasses.replace(load_params(TrainParams, given), epochs=params.epochs)
    space = SearchSpace(params.space, train, load_params(ModelParams, given))
    space.check_overrides(given)
    if ProcessGroup(train.torch_device()).count > 1:
        raise ParameterError("a search runs its trials in one process; start it without torchrun")
    dataset = load_dataset(data)
    with open_study(study, {"data_digest": dataset.digest, **space.settings()}, fresh) as opened:
        finished = search(opened, dataset, space, params)
        shared = [override for override in given if not override.startswith(f"{SearchParams.SECTION}.")]
        print_results(opened, [] if data == DATA_FILE else ["--data", str(data)], shared)
        if not finished:
            done = len(ended_trials(opened))
            print_line(
                f"stopped after {done} of {params.trials} trials. The same command resumes from there.", "yellow"
            )
            sys.exit(130)


@dataclasses.dataclass(frozen=True)
class _TrialSetup:
    """What all trials of a search have in common."""

    dataset: Dataset
    space: SearchSpace
    parent: TrackedRun
    stop: StopSignals


def _pruner(params: SearchParams) -> MedianPruner:
    """Stop a trial that is worse than the median of the complete ones at the same epoch.

    Hyperband and successive halving save more where there are hundreds of trials; each of Hyperband's brackets needs
    some ten of them before the sampler learns, and halving decides by the first epochs, in which strong regularisation
    and low learning rates look bad.
    """
    # Optuna compares steps, which count from 1 here, as epochs do.
    return MedianPruner(n_startup_trials=params.startup_trials, n_warmup_steps=params.warmup_epochs + 1)


def _begin(study: optuna.Study, run: TrackedRun, dataset: Dataset, space: SearchSpace, params: SearchParams) -> None:
    own = {f"search.{key}": value for key, value in dataclasses.asdict(params).items() if key != "space"}
    run.log_params(own | space.settings())
    run.set_tags({"data_digest": dataset.digest, "git_commit": git_commit()})
    start = space.start()
    if start:  # so that the best values are never worse than those that there were
        study.enqueue_trial(start)
    study.set_user_attr(RUN_KEY, run.id)  # last: without it, all this is done again


def _run_trial(study: optuna.Study, trial: optuna.Trial, setup: _TrialSetup) -> None:
    """Train with a trial's values, and record the result in the study and in MLflow."""
    state, value = TrialState.PRUNED, None
    try:
        with TrackedRun(parent_run_id=setup.parent.id, name=f"trial {trial.number}") as run:
            trial.set_user_attr(RUN_KEY, run.id)
            state, value = _train(trial, run, setup)
            if state != TrialState.COMPLETE:
                run.mark_stopped()
    except _NOT_TRAINABLE as error:
        # Pruned, not failed: the sampler passes over failed trials, and would not learn that these values are bad.
        trial.report(math.nan, len(study.trials[trial.number].intermediate_values) + 1)
        trial.set_user_attr(REASON_KEY, str(error).partition("\n")[0])
    log = RunLog(run.id)
    log.set_tags(_tags(trial, state))
    if value is not None:
        log.log_metrics({"trial_value": value})
    study.tell(trial, value, state)


def _train(trial: optuna.Trial, run: TrackedRun, setup: _TrialSetup) -> tuple[TrialState, float | None]:
    """Return how the trial ended, and its metric if it came to its end."""
    train, model = setup.space.sections(trial.params)
    if train.compiled():
        torch.compiler.reset()  # the networks of earlier trials would count against the limit of recompilations
    trainer = Trainer(setup.dataset, model, train)
    run.log_params(trainer.settings)
    while not trainer.finished:
        metrics = trainer.run_epoch(setup.stop)
        if metrics is None:
            return TrialState.FAIL, None
        epoch = len(trainer.history)
        run.log_metrics(metrics, epoch)
        trial.report(metrics["validation_accuracy"], epoch)
        if not trainer.finished and trial.should_prune():
            return TrialState.PRUNED, None
    return TrialState.COMPLETE, trainer.history[trainer.best_epoch - 1]["validation_accuracy"]


def _tags(trial: optuna.Trial, state: TrialState) -> dict[str, str]:
    tags = {"trial_number": str(trial.number), "trial_state": state.name}
    reason = trial.user_attrs.get(REASON_KEY)
    return tags | ({"trial_error": reason} if reason else {})


def _end_run_of_cut(cut: optuna.trial.FrozenTrial, parent: TrackedRun) -> None:
    """End the MLflow run of a trial whose process was killed; it would be shown as running for ever."""
    run_id = cut.user_attrs.get(RUN_KEY)
    if run_id and has_run(run_id):
        with TrackedRun(run_id, parent_run_id=parent.id) as run:
            run.set_tags({"trial_number": str(cut.number), "trial_state": TrialState.FAIL.name})
            run.mark_stopped()


def _log_best(study: optuna.Study, run: TrackedRun) -> None:
    """Record the best trial so far in the search's run: as tags, as MLflow's parameters cannot be changed."""
    best = best_trial(study)
    if best is None or best.value is None:
        return
    run.log_metrics({"best_validation_accuracy": best.value}, len(ended_trials(study)))
    values: Mapping[str, Any] = dict(override.split("=", 1) for override in as_overrides(best.params))
    tags = {"best_trial": str(best.number), "best_run": str(best.user_attrs[RUN_KEY])}
    run.set_tags(tags | {f"best.{key}": value for key, value in values.items()})


def _importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of each parameter in what sets the best quarter of the trials apart; empty for few trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _LEAST_FOR_IMPORTANCE:
        return {}
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_BEST_PART))
    return {f"importance.{key}": share for key, share in shares.items()}


if __name__ == "__main__":
    run_stage(main)
