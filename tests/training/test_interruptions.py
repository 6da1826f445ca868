"""Training in real processes that are killed, and on a real disk that is full."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.data import save_dataset
from training.interrupt import StopSignals
from training.model import ModelParams
from training.optimization import TrainParams
from training.params import load_params
from training.trainer import Trainer
from training.weights import CHECKPOINT_NAME, load_tensors, load_weights

REPOSITORY = Path(__file__).resolve().parents[2]
OVERRIDES = [
    "train.epochs=30",
    "train.batch_size=16",
    "train.device=cpu",
    "train.scheduler=cosine",
    "train.early_stopping_patience=100",
    "train.cutout=8",
    "model.filters=[4, 4, 4]",
    "model.hidden_width=8",
]


@pytest.fixture
def project(tmp_path, make_dataset, copy_store):
    """A folder with params.yaml, a data set and an MLflow store of its own."""
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    save_dataset(make_dataset(), tmp_path / "data.npz")
    copy_store(tmp_path)
    return tmp_path


@contextlib.contextmanager
def training(project, *options):
    """The command, started; its output, both channels, in the file `log`."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MLFLOW_DISABLE_TELEMETRY": "true", "COLUMNS": "200"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{project / 'mlflow.db'}"
    command = [sys.executable, "-m", "training.train", "--data", "data.npz", *options, *OVERRIDES]
    with (
        (project / "log").open("w") as log,
        subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_for_an_epoch(project, process):
    deadline = time.monotonic() + 90
    while "epoch" not in (project / "log").read_text():
        assert process.poll() is None, (project / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_at_any_moment_it_resumes_to_the_same_weights_bit_for_bit(project, make_dataset):
    generator = random.Random(0)
    folder = project / "artifacts"
    for _ in range(3):
        with training(project) as process:
            wait_for_an_epoch(project, process)
            time.sleep(generator.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL  # it was still at work
        load_tensors(folder / CHECKPOINT_NAME)  # whole, whenever it was
        load_weights(folder / "best_cnn_model.pth")
    (folder / ".checkpoint.pt.killed.pt").write_bytes(b"half a checkpoint")
    with training(project) as process:
        assert process.wait(timeout=120) == 0, (project / "log").read_text()
    assert "of an interrupted run" in (project / "log").read_text()
    assert sorted(file.name for file in folder.iterdir()) == ["best_cnn_model.pth", "history.csv", "training.json"]

    params = REPOSITORY / "params.yaml"
    whole = Trainer(
        make_dataset(), load_params(ModelParams, OVERRIDES, params), load_params(TrainParams, OVERRIDES, params)
    )
    while not whole.finished:
        whole.run_epoch(StopSignals())
    weights = load_weights(folder / "best_cnn_model.pth")
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.best_weights.items())
    with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as database:
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]  # one, though four processes


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_what_was_there(project, small_disk):
    weights = small_disk / "best.pth"
    weights.write_bytes(b"w" * 30_000)  # those of an earlier run
    (small_disk / "filler").write_bytes(b"x" * 225_000)
    with training(project, "--weights", str(weights)) as process:
        assert process.wait(timeout=120) == 1
    output = (project / "log").read_text()
    assert "Traceback" not in output
    assert f"No space left on device: '{small_disk / CHECKPOINT_NAME}'" in output
    assert sorted(file.name for file in small_disk.iterdir()) == ["best.pth", "filler"]
    assert weights.read_bytes() == b"w" * 30_000
    (small_disk / "filler").unlink()
    with training(project, "--weights", str(weights)) as process:
        assert process.wait(timeout=120) == 0, (project / "log").read_text()
    load_weights(weights)
