"""The search: its space, what it records in Optuna and MLflow, how it prunes, and how it resumes when interrupted."""

import dataclasses
import math
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from training import search as search_module
from training.data import Dataset, save_dataset
from training.errors import ParameterError, StudyRejected
from training.interrupt import StopSignals
from training.model import ModelParams
from training.optimization import TrainParams
from training.params import load_params
from training.search import main, search
from training.search_space import SearchParams, SearchSpace, as_overrides, load_search_params
from training.search_study import open_study, print_results
from training.trainer import Trainer

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMS = REPOSITORY / "params.yaml"
TINY = ModelParams("SimpleCNN", filters=(4, 4), hidden_width=8)
LR = {"train.lr": {"low": 0.001, "high": 0.1, "log": True}, "model.activation": ["relu", "gelu"]}


class StopAfter:
    """Stands in for StopSignals: a signal arrives before the search looks for the given time (0 is the first)."""

    def __init__(self, looks):
        self.looks = looks

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    @property
    def received(self):
        self.looks -= 1
        return signal.SIGINT if self.looks < 0 else None


@dataclasses.dataclass(frozen=True)
class Searched:
    """What a search has left."""

    finished: bool
    trials: list[FrozenTrial]
    run_id: str
    space: SearchSpace
    dataset: Dataset

    @property
    def ended(self) -> list[tuple[dict[str, Any], float | None, str]]:
        return [(t.params, t.value, t.state.name) for t in self.trials if t.state != TrialState.FAIL]


def search_params(space, **changes):
    given = {"trials": 3, "epochs": 1, "random_trials": 2, "startup_trials": 5, "warmup_epochs": 0, "seed": 0}
    return SearchParams(**(given | {"space": space} | changes))


def run_search(dataset, train, params, file, trials_before=(), model=TINY) -> Searched:
    """Run a search as `main` does; `trials_before` are values of trials to begin with."""
    space = SearchSpace(params.space, dataclasses.replace(train, epochs=params.epochs), model)
    with open_study(file, {"data_digest": dataset.digest, **space.settings()}) as study:
        for values in trials_before:
            study.enqueue_trial(values)
        finished = search(study, dataset, space, params)
        return Searched(finished, study.trials, study.user_attrs["mlflow_run"], space, dataset)


def space_of(given, train=(), model=()):
    """The space with the sections of params.yaml."""
    return SearchSpace(given, load_params(TrainParams, train, PARAMS), load_params(ModelParams, model, PARAMS))


# The space


def test_numbers_become_ranges_of_their_parameters_type_and_lists_become_choices():
    space = space_of(
        {
            "train.lr": {"low": "1e-3", "high": 1, "log": True},
            "train.crop_padding": {"low": 0, "high": 4},
            "model.dropout": {"low": 0, "high": 0.5},
            "model.activation": ["relu", "silu"],
            "train.flip": [True, False],
            "model.hidden_width": [None, 64],
            "model.filters": [[8, 8, 8], [16, 16, 16]],
        }
    )
    assert space.distributions == {
        "train.lr": FloatDistribution(0.001, 1.0, log=True),
        "train.crop_padding": IntDistribution(0, 4),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "model.activation": CategoricalDistribution(["relu", "silu"]),
        "train.flip": CategoricalDistribution([True, False]),
        "model.hidden_width": CategoricalDistribution([None, 64]),
        "model.filters": CategoricalDistribution(["[8, 8, 8]", "[16, 16, 16]"]),
    }


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("train.lr", {"low": 0.2, "high": 0.1}, r"train\.lr\.low is 0\.2; expected at most high, 0\.1"),
        ("train.lr", {"low": 0.0, "high": 0.1}, r"train\.lr\.low: train\.lr is 0\.0; expected above 0"),
        (
            "train.lr",
            {"low": 0.1, "high": float("inf")},
            r"train\.lr\.high: train\.lr is inf; expected a finite number",
        ),
        ("train.lr", {"low": None, "high": 0.1}, r"train\.lr\.low is None; expected float"),
        ("train.lr", {"low": 0.1}, r"train\.lr is .*; expected \{low: …, high: …\}"),
        ("train.lr", {"low": 0.1, "high": 0.2, "step": 0.1}, r"train\.lr is .*; expected \{low: …, high: …\}"),
        ("train.lr", {"low": 0.1, "high": 0.2, "log": 1}, r"train\.lr\.log is 1; expected bool"),
        ("train.lr", 0.1, r"train\.lr is 0\.1; expected \{low: …, high: …\} or a list"),
        ("train.lr", [], r"train\.lr is an empty list"),
        ("train.lr", [0.1, "fast"], r"train\.lr: train\.lr is 'fast'; expected float"),
        ("train.lr", [0.1, -0.1], r"train\.lr: train\.lr is -0\.1; expected above 0"),
        ("train.lr", [0.1, "1e-1"], r"train\.lr has 0\.1 more than once"),
        ("train.weight_decay", {"low": 0, "high": 1, "log": True}, r"weight_decay\.low is 0\.0; expected above 0.*log"),
        (
            "train.crop_padding",
            {"low": 0.5, "high": 4},
            r"crop_padding\.low: train\.crop_padding is 0\.5; expected int",
        ),
        ("train.crop_padding", {"low": 0, "high": 32}, r"crop_padding\.high: .* is 32; expected below"),
        ("train.optimizer", {"low": 0, "high": 1}, r"train\.optimizer is no number; expected a list"),
        ("train.flip", {"low": 0, "high": 1}, r"train\.flip is no number; expected a list"),
        ("train.optimizer", ["sgd", "lion"], r"train\.optimizer: train\.optimizer is 'lion'; expected one of sgd"),
        ("train.optimiser", ["sgd"], r"train\.optimiser: train\.optimiser is not a parameter; known: epochs, "),
        ("train.SECTION", ["train"], r"train\.SECTION is not a parameter"),
        ("train.epochs", {"low": 1, "high": 2}, r"train\.epochs cannot be searched: every trial has search\.epochs"),
        ("train.seed", [1, 2], r"train\.seed cannot be searched: .* luck"),
        ("model.dropout", {"low": 0.0, "high": 1.0}, r"model\.dropout\.high: model\.dropout is 1\.0; it must be"),
        (
            "model.kernel_size",
            {"low": 2, "high": 3},
            r"model\.kernel_size\.low: model\.kernel_size is 2; it must be odd",
        ),
        ("model.filters", [[8, 8, 8], [8, 8]], r"model\.filters: model\.filters is \[8, 8\]; ImprovedCNN needs 3"),
        ("gate.min_accuracy", {"low": 0, "high": 1}, r"gate\.min_accuracy: only train\.KEY and model\.KEY"),
        ("lr", {"low": 0.1, "high": 0.2}, r"search\.space\.lr: only train\.KEY and model\.KEY"),
        (1, [1], r"search\.space\.1: only train\.KEY and model\.KEY"),
    ],
)
def test_a_bad_range_or_list_is_rejected_by_name(key, given, expected):
    with pytest.raises(ParameterError, match=expected) as caught:
        space_of({key: given})
    assert str(caught.value).startswith(f"search.space.{key}")


def test_an_empty_space_is_rejected_with_an_example():
    with pytest.raises(ParameterError, match=r"search\.space is empty; expected .*train\.lr"):
        space_of({})


def test_a_bad_network_of_params_yaml_is_not_laid_to_the_space():
    with pytest.raises(ParameterError, match=r"^model\.dropout is 2"):
        space_of({"train.lr": [0.1]}, model=["model.dropout=2"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.trials=0", "at least 1"),
        ("search.epochs=0", "at least 1"),
        ("search.random_trials=-1", "at least 0"),
        ("search.startup_trials=-1", "at least 0"),
        ("search.warmup_epochs=-1", "at least 0"),
        ("search.seed=-1", "at least 0"),
        ("search.seed=2147483648", "below 2"),
        ("search.space=3", "expected dict"),
        ("search.space=[train.lr]", "expected dict"),
    ],
)
def test_a_value_of_the_section_out_of_range_is_rejected_by_name(override, expected):
    with pytest.raises(ParameterError, match=expected) as caught:
        load_search_params([override], PARAMS)
    assert str(caught.value).startswith(override.split("=")[0])


def test_the_command_line_changes_adds_and_leaves_out_single_parameters_of_the_space():
    before = load_search_params([], PARAMS).space
    after = load_search_params(
        [
            "search.space.train.lr={low: 0.1, high: 0.2}",
            "search.space.train.cutout=[0, 8]",
            "search.space.model.dropout=null",
        ],
        PARAMS,
    ).space
    expected = before | {"train.lr": {"low": 0.1, "high": 0.2}, "train.cutout": [0, 8]}
    del expected["model.dropout"]
    assert after == expected
    whole = load_search_params(["search.space={train.lr: [0.1]}", "search.trials=4"], PARAMS)
    assert (whole.space, whole.trials) == ({"train.lr": [0.1]}, 4)


def test_the_space_of_params_yaml_holds_the_values_of_params_yaml():
    document = yaml.safe_load(PARAMS.read_text())
    start = space_of(document["search"]["space"]).start()
    assert start is not None
    assert start == {key: document[key.split(".")[0]][key.split(".")[1]] for key in start}
    assert set(start) == set(document["search"]["space"])


def test_the_start_is_the_networks_own_value_behind_null_and_nothing_outside_the_space():
    assert space_of({"model.dropout": {"low": 0, "high": 0.9}}, model=["model.dropout=null"]).start() == {
        "model.dropout": 0.5
    }
    assert space_of({"model.dropout": [None, 0.1]}, model=["model.dropout=null"]).start() == {"model.dropout": None}
    assert space_of({"model.filters": [[8, 8, 8], [32, 64, 64]]}).start() == {"model.filters": "[32, 64, 64]"}
    assert space_of({"train.lr": {"low": 0.1, "high": 0.2}}, train=["train.lr=0.3"]).start() is None


def test_values_given_as_overrides_make_the_sections_of_the_trial():
    space = space_of(
        {
            "train.lr": {"low": 1e-9, "high": 1, "log": True},
            "train.flip": [True, False],
            "model.filters": [[8, 8, 8], [16, 16, 16]],
            "model.hidden_width": [None, 64],
            "model.activation": ["relu", "silu"],
        }
    )
    values = {
        "train.lr": 1.2345678901234567e-07,
        "train.flip": False,
        "model.filters": "[16, 16, 16]",
        "model.hidden_width": None,
        "model.activation": "silu",
    }
    train, model = space.sections(values)
    assert (train.lr, train.flip, model.filters, model.hidden_width) == (1.2345678901234567e-07, False, (16,) * 3, None)
    overrides = shlex.split(shlex.join(as_overrides(values)))
    assert load_params(TrainParams, overrides, PARAMS) == train
    assert load_params(ModelParams, overrides, PARAMS) == model


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["search.space.train.lr={low: 0.2, high: 0.1}"], r"search\.space\.train\.lr\.low"),
        (["train.lr=0.1"], r"'train\.lr=0\.1' is not read here: .*search\.space\.train\.lr=null"),
        (["train.epochs=3"], r"'train\.epochs=3' is not read here: every trial has search\.epochs"),
        (["train.momentum=2"], r"train\.momentum is 2"),
        (["model.pool_size=64"], r"model\.pool_size is 64"),
        (["gate.min_accuracy=0.1"], "is not read here"),
        (["search.trial=3"], r"search\.trial is not a parameter"),
    ],
)
def test_bad_values_are_rejected_before_any_work(overrides, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ParameterError, match=expected):
        main(overrides, data=tmp_path / "none.npz", study=tmp_path / "search.db")
    assert not list(tmp_path.iterdir())


def test_torchrun_is_rejected(monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ParameterError, match="without torchrun"):
        main(["train.device=cpu"], data=tmp_path / "none.npz", study=tmp_path / "search.db")


# The trials

GOOD = {"train.lr": 0.05, "model.kernel_size": 3, "model.pool_size": 2}
SLOW = GOOD | {"train.lr": 1e-7}  # learns nothing in these epochs
DIVERGING = GOOD | {"train.lr": 1e30}
IMPOSSIBLE = GOOD | {"model.kernel_size": 19, "model.pool_size": 4}  # each works with the other one's default


@pytest.fixture(scope="module")
def searched(session_store, make_dataset, train_params, tmp_path_factory) -> Iterator[Searched]:
    """A search with one trial of each kind; the last one has the values that params.yaml would have."""
    import mlflow

    space = {"train.lr": [0.05, 1e-7, 1e30], "model.kernel_size": [3, 19], "model.pool_size": [2, 4]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{session_store}")
        mlflow.set_tracking_uri(f"sqlite:///{session_store}")
        yield run_search(
            make_dataset(train=16),
            train_params(lr=0.05, ema_decay=0.0, crop_padding=0),
            search_params(space, trials=5, epochs=4, startup_trials=1, warmup_epochs=2),
            tmp_path_factory.mktemp("search") / "search.db",
            (GOOD, SLOW, DIVERGING, IMPOSSIBLE),
        )


@pytest.fixture
def nested_runs(searched, store) -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_run(searched.run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{searched.run_id}'")
    return sorted(found, key=lambda run: int(run.data.tags["trial_number"]))


def test_a_clearly_worse_trial_is_pruned_after_the_warmup_and_before_its_last_epoch(searched):
    good, slow = searched.trials[:2]
    assert (good.state, sorted(good.intermediate_values)) == (TrialState.COMPLETE, [1, 2, 3, 4])
    assert (slow.state, sorted(slow.intermediate_values)) == (TrialState.PRUNED, [1, 2, 3])
    assert slow.intermediate_values[2] < good.intermediate_values[2]  # the warmup is what kept it then


def test_a_trial_that_diverges_or_fits_no_network_is_pruned_and_does_not_end_the_search(searched):
    diverging, impossible = searched.trials[2:4]
    assert searched.finished
    assert [trial.state for trial in (diverging, impossible)] == [TrialState.PRUNED] * 2
    assert [trial.value for trial in (diverging, impossible)] == [None, None]
    assert "train.lr (1e+30) is too high" in diverging.user_attrs["reason"]
    assert impossible.user_attrs["reason"].startswith("model.kernel_size is 19")
    # Optuna's sampler takes them for the worst of the pruned ones: they have the fewest epochs, and no metric.
    assert [math.isnan(trial.intermediate_values[1]) for trial in (diverging, impossible)] == [True, True]


def test_the_metric_is_the_validation_accuracy_of_the_epoch_that_training_would_keep(searched):
    train, model = searched.space.sections(GOOD)
    trainer = Trainer(searched.dataset, model, train)
    while not trainer.finished:
        trainer.run_epoch(StopSignals())
    good = searched.trials[0]
    assert good.value == trainer.history[trainer.best_epoch - 1]["validation_accuracy"]
    assert list(good.intermediate_values.values()) == [row["validation_accuracy"] for row in trainer.history]


def test_the_values_of_params_yaml_are_a_trial_too(searched):
    assert searched.trials[4].params == GOOD
    assert searched.trials[4].value == searched.trials[0].value


def test_each_trial_is_a_run_inside_the_searchs_run_with_parameters_epochs_and_state(searched, nested_runs):
    import mlflow

    assert [run.info.run_name for run in nested_runs] == [f"trial {number}" for number in range(5)]
    assert [run.info.status for run in nested_runs] == ["FINISHED", "KILLED", "FAILED", "FAILED", "FINISHED"]
    states = ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "COMPLETE"]
    assert [run.data.tags["trial_state"] for run in nested_runs] == states
    assert [run.data.tags.get("trial_error") for run in nested_runs] == [
        trial.user_attrs.get("reason") for trial in searched.trials
    ]
    assert [run.info.run_id for run in nested_runs] == [trial.user_attrs["mlflow_run"] for trial in searched.trials]
    client = mlflow.MlflowClient()
    for run, trial in list(zip(nested_runs, searched.trials, strict=True))[:2]:
        assert run.data.params["train.lr"] == str(trial.params["train.lr"])
        assert run.data.params["train.epochs"] == "4"
        history = client.get_metric_history(run.info.run_id, "validation_accuracy")
        assert {point.step: point.value for point in history} == trial.intermediate_values
    # Optuna gives a pruned trial its last metric as its value, which is not to be compared with those of whole ones.
    expected = [trial.value if trial.state == TrialState.COMPLETE else None for trial in searched.trials]
    assert [run.data.metrics.get("trial_value") for run in nested_runs] == expected


def test_the_searchs_run_has_the_space_what_is_shared_and_the_best_values(searched, store):
    import mlflow

    run = mlflow.get_run(searched.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "search")
    assert run.data.params["search.space.train.lr"] == "0.05, 1e-07, 1e+30"
    assert (run.data.params["search.epochs"], run.data.params["train.batch_size"]) == ("4", "16")
    assert "train.lr" not in run.data.params
    best = max((t for t in searched.trials if t.state == TrialState.COMPLETE), key=lambda trial: trial.value or 0)
    assert run.data.metrics == {"best_validation_accuracy": best.value}
    tags = run.data.tags
    assert {key: tags[f"best.{key}"] for key in best.params} == {key: str(value) for key, value in best.params.items()}
    assert (tags["best_trial"], tags["best_run"]) == (str(best.number), best.user_attrs["mlflow_run"])
    assert tags["data_digest"] == searched.dataset.digest


def test_the_test_part_has_no_influence(store, make_dataset, train_params, tmp_path):
    dataset = make_dataset(train=16)
    train = train_params(lr=0.05, ema_decay=0.0, crop_padding=0)
    other = dataclasses.replace(
        dataset, test_images=255 - dataset.test_images, test_labels=np.roll(dataset.test_labels, 3)
    )
    first, second = (
        run_search(data, train, search_params(LR, trials=1, epochs=4), tmp_path / f"{index}.db")
        for index, data in enumerate((dataset, other))
    )
    assert (first.trials[0].value or 0) > 0.2  # guessing: 0.1
    assert first.ended == second.ended


def test_an_interrupted_search_resumes_to_the_trials_of_one_that_was_not(
    store, make_dataset, train_params, tmp_path, monkeypatch
):
    import mlflow

    # params.yaml's own values, then three random trials, then one of the sampler that has learned.
    params = search_params(LR, trials=5, random_trials=4)
    dataset, train = make_dataset(), train_params()
    whole = run_search(dataset, train, params, tmp_path / "whole.db")
    with monkeypatch.context() as patch:
        # A look before each trial and each of its three batches: in the middle of the third trial.
        patch.setattr(search_module, "StopSignals", lambda: StopAfter(10))
        cut = run_search(dataset, train, params, tmp_path / "cut.db")
    assert (cut.finished, [trial.state.name for trial in cut.trials]) == (False, ["COMPLETE", "COMPLETE", "FAIL"])
    assert mlflow.get_run(cut.run_id).info.status == "KILLED"
    assert mlflow.get_run(cut.trials[2].user_attrs["mlflow_run"]).info.status == "KILLED"
    resumed = run_search(dataset, train, params, tmp_path / "cut.db")
    assert resumed.run_id == cut.run_id
    assert resumed.finished
    assert [trial.state.name for trial in resumed.trials] == ["COMPLETE", "COMPLETE", "FAIL", *["COMPLETE"] * 3]
    assert len({str(values) for values, _, _ in whole.ended}) == 5  # the sampler does not draw the same again
    assert resumed.ended == whole.ended
    assert mlflow.get_run(cut.run_id).info.status == "FINISHED"


def test_importances_are_recorded_once_there_are_trials_enough_and_nothing_is_trained_for_them(
    store, make_dataset, train_params, tmp_path, capsys
):
    import mlflow

    params = search_params(LR, trials=20)
    dataset, train = make_dataset(), dataclasses.replace(train_params(), epochs=params.epochs)
    space = SearchSpace(params.space, train, TINY)
    runs = []
    for count in (19, 20):
        with open_study(tmp_path / f"{count}.db", {}) as study:
            for number in range(count):
                values = {"train.lr": 0.001 + number / 1000, "model.activation": ["relu", "gelu"][number % 2]}
                trial = optuna.create_trial(
                    params=values,
                    distributions=dict(space.distributions),
                    value=number / 20,
                    user_attrs={"mlflow_run": "1"},
                )
                study.add_trial(trial)
            assert search(study, dataset, space, dataclasses.replace(params, trials=count))
            assert len([t for t in study.trials if t.state == TrialState.COMPLETE]) == count
            runs.append(mlflow.get_run(study.user_attrs["mlflow_run"]).data.metrics)
            print_results(study, ["--data", "other.npz"], ["train.batch_size=16"])
    assert runs[0] == {}
    assert runs[1]["importance.train.lr"] > runs[1]["importance.model.activation"]
    assert runs[1]["importance.train.lr"] + runs[1]["importance.model.activation"] == pytest.approx(1)
    lines = capsys.readouterr().out.splitlines()
    assert ["trial", "19", "trial", "18", "trial", "17", "trial", "16", "trial", "15"] in [x.split() for x in lines]
    assert ["validation", "accuracy", "95.00%", "90.00%", "85.00%", "80.00%", "75.00%"] in [x.split() for x in lines]
    assert ["train.lr", "0.02", "0.019", "0.018", "0.017", "0.016"] in [x.split() for x in lines]
    assert lines[-1] == (
        "python -m training.train train.batch_size=16 train.lr=0.02 model.activation=gelu --data other.npz"
    )
    assert "20 trials: 20 to their end, 0 pruned, 0 could not be trained" in lines


# The study's file


def test_another_data_set_another_space_and_other_shared_parameters_are_rejected_by_name(tmp_path):
    file = tmp_path / "search.db"
    settings = {"data_digest": "d1", **space_of(LR).settings()}
    rejection = r"another search is at work on .*search\.db"
    with open_study(file, settings), pytest.raises(StudyRejected, match=rejection), open_study(file, settings):
        pass
    with open_study(file, settings) as study:
        study.enqueue_trial({})
    wider = LR | {"train.lr": {"low": 0.001, "high": 0.2, "log": True}}
    for changed, expected in (
        (settings | {"data_digest": "d2"}, "data_digest: d1 then, d2 now"),
        (
            {"data_digest": "d1", **space_of(wider).settings()},
            r"search\.space\.train\.lr: .*0\.1, log then, .*0\.2, log",
        ),
        (
            {"data_digest": "d1", **space_of(LR | {"train.flip": [True, False]}).settings()},
            r"search\.space\.train\.flip",
        ),
        ({"data_digest": "d1", **space_of(LR, ["train.batch_size=7"]).settings()}, r"train\.batch_size: 128 then, 7"),
        ({"data_digest": "d1", **space_of(LR, ["train.epochs=7"]).settings()}, r"search\.epochs: 60 then, 7"),
    ):
        with pytest.raises(StudyRejected, match=expected), open_study(file, changed):
            pass
    moved_start = {"data_digest": "d1", **space_of(LR, ["train.lr=0.07"]).settings()}  # searched, so it does not matter
    with open_study(file, moved_start) as study:
        assert len(study.trials) == 1
    with open_study(file, settings | {"data_digest": "d2"}, fresh=True) as study:
        assert study.trials == []
    with open_study(file, settings | {"data_digest": "d2"}):
        pass


def test_a_file_that_is_no_database_is_rejected_and_left_alone(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_text("weights")
    rejection = r"weights\.pth cannot be used .*: file is not a database; remove it"
    with pytest.raises(StudyRejected, match=rejection), open_study(file, {}, fresh=True):
        pass
    assert file.read_text() == "weights"


COMMAND = [
    "search.epochs=12", "search.random_trials=2", "search.space={train.lr: {low: 0.001, high: 0.1}}",
    "model.name=SimpleCNN", "model.filters=[4, 4]", "model.hidden_width=8", "train.batch_size=16",
    "train.device=cpu", "train.early_stopping_patience=100",
]  # fmt: skip


def start_search(trials: int) -> subprocess.Popen[str]:
    """Start the search as a user does, in this folder; a trial takes seconds."""
    return subprocess.Popen(
        [sys.executable, "-m", "training.search", f"search.trials={trials}", *COMMAND],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_epochs(process: subprocess.Popen[str], file: Path, count: int) -> None:
    """Wait until the study has at least so many epochs of trials."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
                if database.execute("select count(*) from trial_intermediate_values").fetchone()[0] >= count:
                    return
        except sqlite3.OperationalError:
            pass  # not there yet, or written to
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the study never got {count} epochs:\n{process.communicate()[0]}")


def test_a_killed_and_then_interrupted_search_resumes_in_the_same_study_and_run(store, make_dataset, tmp_path, capsys):
    import mlflow

    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    save_dataset(make_dataset(train=40), tmp_path / "data" / "cifar10.npz")
    file = tmp_path / "artifacts" / "search.db"
    with start_search(50) as process:
        wait_for_epochs(process, file, 2)
        process.kill()
    assert process.returncode == -signal.SIGKILL

    with start_search(50) as process:
        wait_for_epochs(process, file, 15)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 130, output
    assert "of 50 trials. The same command resumes from there." in output

    main(["search.trials=2", *COMMAND])
    output = capsys.readouterr().out
    study = optuna.load_study(study_name="cifar", storage=f"sqlite:///{file}")
    trials = study.trials
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(ended) == 2
    assert trials[0].state == TrialState.FAIL
    assert trials[1].params == trials[0].params  # begun again with its values
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]

    client = mlflow.MlflowClient()
    parent = client.get_run(study.user_attrs["mlflow_run"])
    assert parent.info.status == "FINISHED"
    nested = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert {run.data.tags["trial_number"]: run.info.status for run in nested} == {
        str(trial.number): "FINISHED" if trial.state == TrialState.COMPLETE else "KILLED"
        for trial in trials
        if trial.state != TrialState.WAITING
    }

    line = shlex.split(output.splitlines()[-1])
    assert line[:3] == ["python", "-m", "training.train"]
    assert load_params(TrainParams, line[3:], PARAMS).lr == study.best_params["train.lr"]
    assert load_params(ModelParams, line[3:], PARAMS).filters == (4, 4)
    assert study.best_value == max(trial.value or 0 for trial in ended)
