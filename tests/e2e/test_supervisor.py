"""A server that serves nobody is started again by itself, and every request is answered or told that it is not."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import orjson
import psutil
import pytest
import requests

from cifar.server.run_state import read_state
from cifar.server.torchserve import TorchServe
from tests.support.service import BIN, write_config

# Until it is seen that nobody is served, until a server that runs counts as lost, until it has stopped, and to spare.
BOUND_S = 90.0


def cifar(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "cifar", *map(str, arguments)], capture_output=True, text=True, timeout=150)


@pytest.fixture(scope="module")
def server(quick_archive, tmp_path_factory) -> Iterator[TorchServe]:
    """A server that `cifar up` has started, with its supervisor."""
    folder = tmp_path_factory.mktemp("supervised")
    (folder / "model_store").mkdir()
    shutil.copy(quick_archive, folder / "model_store")
    server = TorchServe(folder / "run", write_config(folder), folder / "model_store")
    try:
        done = cifar("up", *options(server), "--model-store", server.model_store)
        assert done.returncode == 0, done.stderr
        yield server
    finally:
        cifar("down", "--run-dir", server.run_dir)
        server.stop()


def options(server: TorchServe) -> list[object]:
    return ["--run-dir", server.run_dir, "--config", server.config]


def supervisors(server: TorchServe) -> list[psutil.Process]:
    run_dir = str(server.run_dir.resolve())
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "cifar.server.supervisor" in (process.info["cmdline"] or ()) and run_dir in process.info["cmdline"]
    ]


def wait_until_ready(server: TorchServe) -> None:
    deadline = time.monotonic() + 2 * BOUND_S
    while cifar("ready", *options(server)).returncode != 0:
        assert time.monotonic() < deadline, "it was not started again"
        time.sleep(1)


def ask(server: TorchServe) -> tuple[float, int | str]:
    """Ask for a prediction; how many seconds it took, and the status or how the connection ended."""
    begin = time.monotonic()
    try:
        url = f"{server.addresses.inference}/predictions/cifar"
        headers = {"Content-Type": "application/octet-stream"}
        outcome: int | str = requests.post(url, bytes(3072), headers=headers, timeout=3 * BOUND_S).status_code
    except requests.RequestException as error:
        outcome = type(error).__name__
    return time.monotonic() - begin, outcome


def workers(server: TorchServe) -> list[psutil.Process]:
    java = server.process
    assert java is not None
    return [child for child in java.children() if any("model_service_worker" in word for word in child.cmdline())]


def test_ready_says_whether_predictions_are_answered_and_is_counted_by_no_metric(server):
    done = cifar("ready", *options(server))
    assert (done.returncode, done.stdout) == (0, "Ready.\n")
    time.sleep(2)
    metrics = requests.get(f"{server.addresses.metrics}/metrics", timeout=10).text
    before = [line for line in metrics.splitlines() if line.startswith(("ts_inference_requests", "cifar_predictions"))]
    assert cifar("ready", *options(server)).returncode == 0
    time.sleep(2)
    metrics = requests.get(f"{server.addresses.metrics}/metrics", timeout=10).text
    after = [line for line in metrics.splitlines() if line.startswith(("ts_inference_requests", "cifar_predictions"))]
    assert before == after


def test_a_server_that_was_killed_is_started_again(server):
    java = server.process
    assert java is not None
    java.kill()
    java.wait(10)
    done = cifar("ready", *options(server))
    assert (done.returncode, "Not ready" in done.stderr) == (1, True)
    wait_until_ready(server)
    assert ask(server)[1] == 200


def test_requests_for_workers_that_cannot_start_are_not_kept_waiting(server):
    state = read_state(server.run_dir)
    assert state is not None
    before = server.process
    for folder in (Path(state.temp_dir) / "models").iterdir():
        shutil.rmtree(folder)  # as a cleaner of temporary folders does
    for worker in workers(server):
        worker.kill()
    time.sleep(0.5)
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _number: ask(server), range(40)))
    assert max(seconds for seconds, _outcome in answers) < BOUND_S, answers
    wait_until_ready(server)
    assert server.process != before
    assert ask(server)[1] == 200


def test_requests_to_workers_that_are_stuck_are_answered_when_these_are_replaced(server):
    stuck = workers(server)
    for worker in stuck:
        worker.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _number: ask(server), range(8)))
    for worker in stuck:
        with suppress(psutil.NoSuchProcess):  # they have been replaced
            worker.send_signal(signal.SIGCONT)
    assert max(seconds for seconds, _outcome in answers) < BOUND_S, answers
    wait_until_ready(server)


def test_status_shows_what_is_served_where_the_state_file_cannot_be_trusted(server):
    where = ["--management-url", server.addresses.management, "--run-dir", server.run_dir]
    path = server.run_dir / "torchserve.json"
    whole = path.read_bytes()
    try:
        path.write_text("{")
        done = cifar("status", *where, "--model-store", server.model_store)
        as_json = cifar("status", *where, "--model-store", server.model_store, "--json")
    finally:
        path.write_bytes(whole)
    assert done.returncode == as_json.returncode == 1
    assert "1.0" in done.stdout
    assert "Remove the file, then: cifar down" in done.stdout
    (difference,) = orjson.loads(as_json.stdout)["differences"]
    assert difference.startswith(f"{path} cannot be trusted")


def test_up_starts_a_supervisor_that_was_killed_and_down_ends_it_first(server):
    (supervisor,) = supervisors(server)
    supervisor.kill()
    supervisor.wait(10)
    assert cifar("up", *options(server), "--model-store", server.model_store).returncode == 0
    assert len(supervisors(server)) == 1
    assert cifar("down", "--run-dir", server.run_dir).returncode == 0
    assert supervisors(server) == []
    time.sleep(5)
    assert server.process is None
    assert not server.run_dir.exists()
