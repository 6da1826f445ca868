"""Made data whose answers are known by construction, and copies of the session's MLflow store."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data import Dataset
from training.optimization import TrainParams
from training.params import load_params

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than these tiny networks do; processes that tests start inherit it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    """Images of one colour a class, with some noise: a few steps tell them apart."""

    def make(train: int = 4, validation: int = 2, test: int = 2, seed: int = 0) -> Dataset:
        generator = np.random.default_rng(seed)
        colours = np.array([[25 * k, 255 - 25 * k, 100 * (k % 3)] for k in range(10)])
        parts: list[np.ndarray] = []
        for count in (train, validation, test):
            labels = np.tile(np.arange(10), count)
            noise = generator.integers(-12, 13, (len(labels), 32, 32, 3))
            parts += [np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels]
        return Dataset(*parts)

    return make


@pytest.fixture(scope="session")
def train_params() -> Callable[..., TrainParams]:
    """The section `train` of params.yaml, small: `train_params(epochs=3)`."""

    def make(**changes: object) -> TrainParams:
        small = {"epochs": 2, "batch_size": 16, "device": "cpu", "early_stopping_patience": 100} | changes
        overrides = [f"train.{key}={value}" for key, value in small.items()]
        return load_params(TrainParams, overrides, REPOSITORY / "params.yaml")

    return make


@pytest.fixture(scope="session")
def copy_store(session_store: Path) -> Callable[[Path], Path]:
    """Put an MLflow database without runs into a folder, by the name that MLflow looks for there."""

    def copy(folder: Path) -> Path:
        path = folder / "mlflow.db"
        with (
            contextlib.closing(sqlite3.connect(session_store)) as source,
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)
            target.execute("delete from runs")  # those of other tests
            target.commit()
        return path

    return copy


@pytest.fixture
def store(session_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """What the test's runs are tracked in; the test works in its own folder."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{session_store}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    return uri


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a stage as a user does, in the test's folder, which has params.yaml."""
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"training.{name}", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "60"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
