"""Training: real runs on made images that a few steps tell apart."""

import contextlib
import csv
import dataclasses
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from cifar.common.errors import TrackingError
from training import train as train_module
from training.data import save_dataset
from training.errors import ParameterError, TrainingDiverged, WeightsError
from training.interrupt import StopSignals
from training.model import ModelParams, predict_probabilities
from training.params import load_params
from training.tracking import git_commit
from training.train import train
from training.trainer import Trainer
from training.weights import Checkpoint, load_classifier, load_tensors, load_weights, write_tensors
from training.weights import load_checkpoint as load_any_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ModelParams("ImprovedCNN", filters=(4, 4, 4), hidden_width=8)
SMALL_SIMPLE = ModelParams("SimpleCNN", filters=(4, 4), hidden_width=8, dropout=0.3)


class NeverStop(StopSignals):
    """Not entered, so no signal reaches it."""


class StopAfter:
    """Stands in for StopSignals: a signal arrives before the loop looks for the given time (0 is the first)."""

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


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def load_checkpoint(path, settings) -> Checkpoint:
    checkpoint = load_any_checkpoint(path, settings)
    assert checkpoint is not None
    return checkpoint


def history(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def without_speed(history):
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in history]


def same_tensors(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def run_whole(dataset, model, params):
    trainer = Trainer(dataset, model, params)
    while not trainer.finished:
        trainer.run_epoch(NeverStop())
    return trainer


def test_a_run_leaves_weights_a_record_and_no_checkpoint(store, make_dataset, train_params, tmp_path, capsys):
    import mlflow

    dataset = make_dataset()
    weights = tmp_path / "out" / "best.pth"
    trainer = Trainer(dataset, SMALL, train_params(epochs=2))
    assert train(trainer, weights) is True
    assert names(weights.parent) == ["best.pth", "history.csv", "training.json"]
    assert same_tensors(torch.load(weights, weights_only=True), trainer.best_weights)

    record = orjson.loads((weights.parent / "training.json").read_bytes())
    assert (record["model"]["name"], record["model"]["filters"]) == ("ImprovedCNN", [4, 4, 4])
    assert record["model"]["dropout"] == 0.5  # the network's own value, not null
    assert (record["train"]["epochs"], record["train"]["crop_padding"]) == (2, 2)
    assert (record["data_digest"], record["git_commit"]) == (dataset.digest, git_commit())
    assert len(record["history"]) == 2
    best = record["history"][record["best_epoch"] - 1]
    assert (
        record["validation_loss"] == best["validation_loss"] == min(row["validation_loss"] for row in record["history"])
    )

    run = mlflow.get_run(record["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert (run.data.params["train.epochs"], run.data.params["model.name"]) == ("2", "ImprovedCNN")
    assert set(run.data.params) == set(trainer.settings)
    assert (run.data.tags["data_digest"], run.data.tags["git_commit"]) == (dataset.digest, git_commit())
    client = mlflow.MlflowClient()
    for key in record["history"][0]:
        logged = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
        assert sorted(logged) == [(epoch, row[key]) for epoch, row in enumerate(record["history"], 1)]
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert kept >= {"best.pth", "history.csv", "training.json"}
    assert history(weights.parent) == [
        {"epoch": str(e), **{k: str(v) for k, v in row.items()}} for e, row in enumerate(trainer.history, 1)
    ]
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["epoch", "1"], ["epoch", "2"]]


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        (ModelParams("SimpleCNN", filters=(8, 8), hidden_width=32), {"optimizer": "adam", "lr": 0.01}),
        (
            ModelParams("ImprovedCNN", filters=(8, 8, 8), hidden_width=64, dropout=0.1),
            {"optimizer": "sgd", "lr": 0.05},
        ),
    ],
)
def test_an_easy_problem_is_learned(make_dataset, train_params, model, optimizer):
    dataset = make_dataset(train=20, test=5)
    trainer = run_whole(dataset, model, train_params(epochs=8, crop_padding=1, **optimizer))
    losses = [row["train_loss"] for row in trainer.history]
    assert losses[-1] < 0.5 * losses[0]
    trainer.classifier.network.load_state_dict(trainer.best_weights)
    probabilities = predict_probabilities(trainer.classifier.eval(), dataset.test_images)
    assert (probabilities.argmax(1) == dataset.test_labels).mean() > 0.5  # guessing: 0.1


def test_the_optimizer_that_was_asked_for_is_used_with_its_values(make_dataset, train_params):
    changes = {"lr": 0.03, "weight_decay": 0.02, "momentum": 0.7}
    sgd = Trainer(make_dataset(), SMALL, train_params(optimizer="sgd", **changes)).optimizer
    adam = Trainer(make_dataset(), SMALL, train_params(optimizer="adam", **changes)).optimizer
    assert (type(sgd), type(adam)) == (torch.optim.SGD, torch.optim.Adam)
    assert sgd.param_groups[0]["momentum"] == 0.7
    adamw = Trainer(make_dataset(), SMALL, train_params(optimizer="adamw", **changes)).optimizer
    assert type(adamw) is torch.optim.AdamW
    assert sgd.param_groups[0]["nesterov"] is True
    for optimizer in (sgd, adam, adamw):
        weights, others = optimizer.param_groups
        assert (weights["lr"], weights["weight_decay"], others["weight_decay"]) == (0.03, 0.02, 0.0)
        assert {tensor.ndim for tensor in weights["params"]} == {2, 4}
        assert {tensor.ndim for tensor in others["params"]} == {1}


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(make_dataset, train_params):
    first, again, other = (run_whole(make_dataset(), SMALL, train_params(seed=seed)) for seed in (0, 0, 1))
    assert same_tensors(first.best_weights, again.best_weights)
    assert not same_tensors(first.best_weights, other.best_weights)


def test_the_test_part_is_not_looked_at(make_dataset, train_params):
    dataset = make_dataset()
    blind = dataclasses.replace(dataset, test_images=np.zeros((0, 32, 32, 3), np.uint8), test_labels=np.zeros(0, int))
    first, second = (run_whole(data, SMALL, train_params()) for data in (dataset, blind))
    assert same_tensors(first.best_weights, second.best_weights)


def test_a_device_that_is_not_there_is_rejected(train_params, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParameterError, match=r"train\.device is cuda; expected cpu or auto"):
        train_params(device="cuda")


def _logits(labels, loss):
    """Logits with that mean cross-entropy: the right class has the probability exp(-loss)."""
    right = torch.full((len(labels), 10), math.log((1 - math.exp(-loss)) / 9) if loss == loss else loss)
    right[torch.arange(len(labels)), labels] = -loss
    return right


@pytest.fixture
def scripted_losses(monkeypatch):
    """Let the validation loss of each epoch be as given; the network trains as ever."""

    def tell(*losses):
        left = list(losses)
        # Of the loss: logits of 0 for both classes but for a constant that makes it what is given.
        monkeypatch.setattr(Trainer, "_validate", lambda trainer: _logits(trainer.validation_part[1], left.pop(0)))

    return tell


def test_the_best_epochs_weights_are_saved_rather_than_the_lasts(
    store, make_dataset, train_params, tmp_path, scripted_losses
):
    scripted_losses(3.0, 1.0, 2.0)
    weights = tmp_path / "out" / "best.pth"
    trainer = Trainer(make_dataset(), SMALL, train_params(epochs=3, ema_decay=0))
    train(trainer, weights)
    assert (len(trainer.history), trainer.best_epoch) == (3, 2)
    scripted_losses(3.0, 1.0)
    two_epochs = run_whole(make_dataset(), SMALL, train_params(epochs=2, ema_decay=0))
    saved = load_weights(weights)
    assert same_tensors(saved, two_epochs.classifier.network.state_dict())
    assert not same_tensors(saved, trainer.classifier.network.state_dict())
    assert orjson.loads((tmp_path / "out" / "training.json").read_bytes())["best_epoch"] == 2


def test_early_stopping_ends_it_after_so_many_epochs_without_a_better_loss(make_dataset, train_params, scripted_losses):
    scripted_losses(5.0, 4.0, 4.0, 4.5, 3.0, 3.1, 3.2, 3.3, 0.0)
    trainer = run_whole(make_dataset(), SMALL, train_params(epochs=50, early_stopping_patience=3))
    assert (len(trainer.history), trainer.best_epoch) == (8, 5)


def test_the_learning_rate_falls_on_a_plateau(make_dataset, train_params, scripted_losses):
    scripted_losses(4.0, 3.0, 2.0, *[2.0] * 5)
    params = train_params(epochs=8, plateau_factor=0.5, plateau_patience=2, lr=0.008)
    trainer = run_whole(make_dataset(), SMALL, params)
    # Epoch 3 is the best; 4, 5 and 6 are three without a better one, which is more than two.
    rates = [row["learning_rate"] for row in trainer.history]
    assert rates == pytest.approx([0.008] * 6 + [0.004] * 2)


def test_the_first_of_equal_epochs_is_the_best(make_dataset, train_params, scripted_losses):
    scripted_losses(2.0, 2.0)
    assert run_whole(make_dataset(), SMALL, train_params()).best_epoch == 1


def test_a_resumed_run_remembers_the_epochs_without_a_better_loss(
    make_dataset, train_params, tmp_path, scripted_losses
):
    params = train_params(epochs=5, plateau_factor=0.5, plateau_patience=2, lr=0.008)
    scripted_losses(1.0, *[2.0] * 4)
    first = Trainer(make_dataset(), SMALL, params)
    for _ in range(2):
        first.run_epoch(NeverStop())
    first.checkpoint("run").save(tmp_path / "checkpoint.pt")
    second = Trainer(make_dataset(), SMALL, params)
    second.restore(load_checkpoint(tmp_path / "checkpoint.pt", second.settings))
    while not second.finished:
        second.run_epoch(NeverStop())
    assert second.best_epoch == 1
    assert [row["learning_rate"] for row in second.history] == pytest.approx([0.008] * 4 + [0.004])


def stop_in_epoch(monkeypatch, epoch, batches):
    """Send the signal in the middle of that epoch. The loop looks before each batch."""
    looks = (epoch - 1) * batches + batches // 2
    monkeypatch.setattr(train_module, "StopSignals", lambda: StopAfter(looks))


@pytest.mark.parametrize(
    ("model", "optimizer"), [(SMALL, "adam"), (SMALL_SIMPLE, "sgd")], ids=["ImprovedCNN adam", "SimpleCNN sgd"]
)
def test_a_resumed_run_ends_as_an_uninterrupted_one_bit_for_bit(
    store, make_dataset, train_params, tmp_path, monkeypatch, model, optimizer
):
    import mlflow

    dataset = make_dataset()  # 40 images: 3 batches
    params = train_params(epochs=5, optimizer=optimizer, plateau_patience=0, plateau_factor=0.3)
    weights = tmp_path / "out" / "best.pth"

    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 3, batches=3)
        interrupted = Trainer(dataset, model, params)
        assert train(interrupted, weights) is False
    assert len(interrupted.history) == 2
    assert names(weights.parent) == ["best.pth", "checkpoint.pt", "history.csv", "training.json"]
    run_id = load_checkpoint(weights.parent / "checkpoint.pt", interrupted.settings).run_id
    assert mlflow.get_run(run_id).info.status == "KILLED"

    torch.manual_seed(99)  # randomness of the new process
    resumed = Trainer(dataset, model, params)
    assert train(resumed, weights) is True
    whole = run_whole(dataset, model, params)
    assert without_speed(resumed.history) == without_speed(whole.history)
    assert same_tensors(load_weights(weights), whole.best_weights)
    assert same_tensors(resumed.classifier.network.state_dict(), whole.classifier.network.state_dict())
    assert names(weights.parent) == ["best.pth", "history.csv", "training.json"]
    assert orjson.loads((weights.parent / "training.json").read_bytes())["mlflow_run"] == run_id
    assert mlflow.get_run(run_id).info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(run_id, "train_loss")
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5]


def test_weights_of_a_stopped_run_stand_beside_their_own_record(
    store, make_dataset, train_params, tmp_path, monkeypatch
):
    weights = tmp_path / "out" / "best.pth"
    train(Trainer(make_dataset(), SMALL, train_params()), weights)
    other = dataclasses.replace(SMALL_SIMPLE, activation="gelu")
    stop_in_epoch(monkeypatch, 2, batches=3)
    assert train(Trainer(make_dataset(), other, train_params()), weights) is False
    classifier = load_classifier(weights)
    assert type(classifier.network).__name__ == "SimpleCNN"
    assert isinstance(classifier.network.activation, torch.nn.GELU)


def test_a_run_that_fails_is_failed_in_mlflow(store, make_dataset, train_params, tmp_path, monkeypatch):
    import mlflow

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(train_module, "save_weights", fail)
    trainer = Trainer(make_dataset(), SMALL, train_params())
    with pytest.raises(OSError, match="No space"):
        train(trainer, tmp_path / "out" / "best.pth")
    run_id = load_checkpoint(tmp_path / "out" / "checkpoint.pt", trainer.settings).run_id
    assert mlflow.get_run(run_id).info.status == "FAILED"


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_weights_before(
    store, make_dataset, train_params, tmp_path, scripted_losses
):
    import mlflow

    scripted_losses(1.0, float("nan"))
    trainer = Trainer(make_dataset(), SMALL, train_params(epochs=5))
    weights = tmp_path / "out" / "best.pth"
    with pytest.raises(TrainingDiverged, match=r"epoch 2 is nan; train\.lr"):
        train(trainer, weights)
    assert same_tensors(load_weights(weights), trainer.best_weights)
    run_id = load_checkpoint(weights.parent / "checkpoint.pt", trainer.settings).run_id
    assert mlflow.get_run(run_id).info.status == "FAILED"


def test_resuming_a_run_that_mlflow_does_not_have_is_rejected_with_the_store(
    store, make_dataset, train_params, tmp_path
):
    trainer = Trainer(make_dataset(), SMALL, train_params())
    trainer.run_epoch(NeverStop())
    trainer.checkpoint("0123456789abcdef0123456789abcdef").save(tmp_path / "checkpoint.pt")
    with pytest.raises(TrackingError, match=r"run 0123456789abcdef0123456789abcdef cannot be resumed in .*sqlite:"):
        train(trainer, tmp_path / "best.pth")
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.fixture
def checkpoint(make_dataset, train_params, tmp_path):
    trainer = Trainer(make_dataset(), SMALL, train_params())
    trainer.run_epoch(NeverStop())
    path = tmp_path / "checkpoint.pt"
    trainer.checkpoint("run").save(path)
    return path


def test_a_corrupt_checkpoint_is_rejected_by_name(checkpoint, make_dataset, train_params, tmp_path):
    trainer = Trainer(make_dataset(), SMALL, train_params())
    whole = checkpoint.read_bytes()
    for content in (b"", b"rubbish", whole[: len(whole) // 2], whole[:-100]):
        checkpoint.write_bytes(content)
        with pytest.raises(WeightsError, match=r"checkpoint\.pt"):
            train(trainer, tmp_path / "best.pth")
    torch.save(SMALL.__dict__ | {"filters": None}, checkpoint)
    with pytest.raises(WeightsError, match=r"no checkpoint of this version.*start over: --fresh, or delete"):
        train(trainer, tmp_path / "best.pth")


def test_a_checkpoint_of_the_release_before_is_resumed(checkpoint, make_dataset, train_params):
    trainer = Trainer(make_dataset(), SMALL, train_params())
    old = load_tensors(checkpoint)
    names = {"model.flip_tta": "model.mirror", "train.ema_decay": "train.average_decay"}
    old["settings"] = {names.get(key, key): value for key, value in old["settings"].items()}
    old["average"] = old.pop("ema")
    write_tensors(old, checkpoint)
    trainer.restore(load_checkpoint(checkpoint, trainer.settings))
    assert len(trainer.history) == 1
    assert trainer.run_epoch(NeverStop()) is not None


def test_fresh_drops_an_interrupted_run(checkpoint, store, make_dataset, train_params, tmp_path):
    trainer = Trainer(make_dataset(), SMALL, train_params(seed=3))
    with pytest.raises(WeightsError, match=r"train\.seed 0 then, 3 now.*or start over: --fresh, or delete"):
        train(trainer, tmp_path / "best.pth")
    assert train(trainer, tmp_path / "best.pth", fresh=True) is True
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2"]
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"epochs": 9}}, "train.epochs 2 then, 9 now"),
        ({"params": {"seed": 3}}, "train.seed 0 then, 3 now"),
        ({"model": {"hidden_width": 9}}, "model.hidden_width 8 then, 9 now"),
        ({"data": {"seed": 3}}, "data_digest"),
    ],
)
def test_a_checkpoint_of_other_settings_is_rejected_with_the_difference(
    checkpoint, make_dataset, train_params, tmp_path, change, message
):
    trainer = Trainer(
        make_dataset(**change.get("data", {})),
        dataclasses.replace(SMALL, **change.get("model", {})),
        train_params(**change.get("params", {})),
    )
    with pytest.raises(WeightsError, match=message):
        train(trainer, tmp_path / "best.pth")


# Real processes and real signals. An epoch and its entry in MLflow take some hundredths of a second, so that the signal
# comes long before the end.

EPOCHS = 24
OVERRIDES = [
    f"train.epochs={EPOCHS}",
    "train.batch_size=16",
    "train.device=cpu",
    "train.early_stopping_patience=100",
    "model.filters=[4, 4, 4]",
    "model.hidden_width=8",
]


def run_until_an_epoch_is_done(folder, arguments, number):
    """Start the command, send the signal when it reports an epoch; return its exit code and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)  # MLflow's default: mlflow.db where it runs
    command = [sys.executable, "-m", "training.train", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            lines = []
            for line in process.stdout or []:
                lines.append(line)
                if line.startswith("epoch") and number:
                    process.send_signal(number)
                    number = None  # a second one would end it
            return process.wait(timeout=60), "".join(lines)
        finally:
            process.kill()


def epochs_of(output):
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith("epoch")]


def statuses(folder):
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [row[0] for row in database.execute("select status from runs")]


@pytest.fixture(scope="module")
def stopped_twice(make_dataset, copy_store, tmp_path_factory):
    """One run, stopped by SIGINT, resumed by the same command, stopped again by SIGTERM."""
    folder = tmp_path_factory.mktemp("stopped twice")
    (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    save_dataset(make_dataset(), folder / "my data.npz")
    copy_store(folder)
    runs, arguments = [], ["--data", "my data.npz", *OVERRIDES]
    for number in (signal.SIGINT, signal.SIGTERM):
        code, output = run_until_an_epoch_is_done(folder, arguments, number)
        assert code == 130, output
        kept = sorted(file.name for file in (folder / "artifacts").iterdir())
        weights = len(load_weights(folder / "artifacts" / "best_cnn_model.pth")["fc1.weight"])
        runs.append((output, kept, weights, statuses(folder)))
    return folder, runs


@pytest.mark.parametrize("index", [0, 1], ids=["SIGINT", "SIGTERM"])
def test_a_signal_stops_it_with_the_best_weights_and_the_advice_to_resume(stopped_twice, index):
    output, kept, width, status = stopped_twice[1][index]
    assert "Traceback" not in output
    done = epochs_of(output)[-1]
    assert done < EPOCHS
    assert f"stopped after epoch {done}; the best weights so far" in output
    assert "The same command resumes from there" in output
    assert kept == ["best_cnn_model.pth", "checkpoint.pt", "history.csv", "training.json"]
    assert width == 8
    assert status == ["KILLED"]  # one run, though two processes


def test_another_process_resumes_at_the_next_epoch_to_the_same_weights_bit_for_bit(
    stopped_twice, make_dataset, train_params, monkeypatch
):
    import mlflow

    folder, ((first, *_), (second, *_)) = stopped_twice
    assert f"resuming after epoch {epochs_of(first)[-1]} of an interrupted run" in second
    assert epochs_of(first)[0] == 1
    assert epochs_of(second)[0] == epochs_of(first)[-1] + 1

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    weights = folder / "artifacts" / "best_cnn_model.pth"
    params = train_params(epochs=EPOCHS)
    model = load_params(ModelParams, OVERRIDES, REPOSITORY / "params.yaml")
    resumed = Trainer(make_dataset(), model, params)
    assert train(resumed, weights) is True
    whole = run_whole(make_dataset(), model, params)
    assert without_speed(resumed.history) == without_speed(whole.history)
    assert same_tensors(load_weights(weights), whole.best_weights)
    assert names(weights.parent) == ["best_cnn_model.pth", "history.csv", "training.json"]
    assert statuses(folder) == ["FINISHED"]
