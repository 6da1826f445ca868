"""Several processes, started by torchrun: they agree with one within a tolerance, and resume when one is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import torch

from training.data import save_dataset
from training.weights import load_weights

REPOSITORY = Path(__file__).resolve().parents[2]

# 50 images in batches of 15: the last has 5, shares of 1 and 2 among them with three processes.
OVERRIDES = [
    "train.epochs=3",
    "train.batch_size=15",
    "train.device=cpu",
    "train.lr=0.02",
    "model.filters=[4, 4, 4]",
    "model.hidden_width=8",
]


# Batch normalisation sees the share of one process, and each draws its own dropout.
PLAIN = ["model.batch_norm=false", "model.dropout=0"]


@pytest.fixture(scope="module")
def project(make_dataset, tmp_path_factory):
    """A folder with params.yaml and a small data set."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    save_dataset(make_dataset(train=5, validation=3), folder / "data.npz")
    return folder


def command(processes, folder, *overrides, restarts=0):
    """The training command, under torchrun where it is more than one process."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        launcher += [f"--max-restarts={restarts}"]
    weights = folder / f"out-{processes}-{restarts}" / "best.pth"
    options = ["--data", str(folder / "data.npz"), "--weights", str(weights)]
    return [*launcher, "-m", "training.train", *options, *OVERRIDES, *overrides], weights


@pytest.fixture(scope="module")
def environment(session_store):
    """What the processes are started with: one MLflow store, no threads that wait for each other."""
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{session_store}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return os.environ | store | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def run(arguments, folder, environment):
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def metrics(weights):
    record = orjson.loads((weights.parent / "training.json").read_bytes())
    return [
        {key: value for key, value in row.items() if key != "images_per_second"} for row in record["history"]
    ], record


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_agree_with_one_but_for_the_order_of_additions(project, environment, processes):
    one, alone = command(1, project, *PLAIN)
    if not alone.exists():
        run(one, project, environment)
    several, together = command(processes, project, *PLAIN)
    output = run(several, project, environment)
    # Only the first of them reports.
    assert sum(line.startswith("epoch") for line in output.splitlines()) == 3
    history, record = metrics(alone)
    shared_history, shared_record = metrics(together)
    for row, shared in zip(history, shared_history, strict=True):
        assert shared == pytest.approx(row, rel=1e-4)
    assert shared_record["best_epoch"] == record["best_epoch"]
    weights, shared_weights = load_weights(alone), load_weights(together)
    assert weights.keys() == shared_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(shared_weights[name], tensor, rtol=1e-3, atol=1e-5)
    assert not (together.parent / "checkpoint.pt").exists()


START = """
import os
import time

import torch

from training.distributed import ProcessGroup

first_start = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
if not first_start and os.environ["RANK"] == "1":
    time.sleep(5)
with ProcessGroup(torch.device("cpu")) as processes:
    assert processes.sum(torch.ones(1)).item() == 2
    if first_start:
        os._exit(1)
"""


def test_a_restarted_process_does_not_look_for_dead_ones(environment, tmp_path):
    # The second process starts late: the store still has the address of the one before it, which is gone.
    (tmp_path / "start.py").write_text(START)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    run([*launcher, "start.py"], tmp_path, environment)


def children_of(pid):
    """The processes that torchrun started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_killed_process_is_started_again_and_the_run_resumes_from_its_last_epoch(project, environment):
    epochs = "train.epochs=12"
    patience = "train.early_stopping_patience=100"
    arguments, weights = command(2, project, epochs, patience, restarts=2)
    with (project / "log").open("w") as log:
        process = subprocess.Popen(
            arguments, cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        checkpoint = weights.parent / "checkpoint.pt"
        deadline = time.monotonic() + 120
        while not checkpoint.exists():
            assert time.monotonic() < deadline, (project / "log").read_text()
            time.sleep(0.02)
        os.kill(children_of(process.pid)[1], signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # the log says more
            process.wait(timeout=240)
        assert process.returncode == 0, (project / "log").read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # those that it started too
        process.wait()
    log_text = (project / "log").read_text()
    assert "of an interrupted run" in log_text
    history, _ = metrics(weights)
    assert len(history) == 12
    assert not checkpoint.exists()

    whole, undisturbed = command(3, project, epochs, patience)
    run([*whole[:3], "--standalone", "--nproc-per-node=2", *whole[5:]], project, environment)
    expected, _ = metrics(undisturbed)
    for row, other in zip(history, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-6)
