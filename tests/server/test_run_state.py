"""What `up` remembers is read back, or rejected: it decides which processes are ended and which folders are removed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import psutil
import pytest

from cifar.common.errors import InvalidStateFile
from cifar.common.processes import identify
from cifar.server.run_folder import make_run_folder
from cifar.server.run_state import RunState, find_server, find_servers, find_users, read_state, write_state
from cifar.server.torchserve import TorchServe

_SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run_folder(tmp_path / "run", tmp_path / "log4j2.xml")
    return tmp_path / "run"


@pytest.fixture
def server(run_dir) -> Iterator[subprocess.Popen[bytes]]:
    """What looks like the server of that run folder: a process with its arguments."""
    command = [sys.executable, "-c", _SLEEP, f"-Djava.io.tmpdir={run_dir}/tmp", "org.pytorch.serve.ModelServer"]
    with subprocess.Popen(command) as process:
        yield process
        process.kill()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", _SLEEP]) as process:
        yield process
        process.kill()


def state_of(process: subprocess.Popen[bytes], run_dir: Path) -> RunState:
    return RunState(process.pid, identify(process.pid), f"{run_dir}/tmp", "/c.properties", "a" * 64, {})


def test_what_was_written_is_read(run_dir, server):
    state = replace(state_of(server, run_dir), archives={"/store/cifar-1.0.mar": "b" * 64})
    assert read_state(run_dir) is None
    write_state(run_dir, state)
    assert read_state(run_dir) == state
    assert sorted(path.name for path in run_dir.iterdir()) == ["log4j2.xml", "torchserve.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}', "[" * 100_000, "1" * (2 << 20)])
def test_a_damaged_file_is_an_error_that_loses_no_server(run_dir, server, text):
    file = run_dir / "torchserve.json"
    file.write_text(text)
    told = rf"torchserve\.json cannot be trusted: .*run: {server.pid} .*Remove the file, then: cifar down"
    with pytest.raises(InvalidStateFile, match=told):
        read_state(run_dir)
    with pytest.raises(InvalidStateFile, match=told):
        TorchServe(run_dir).stop()
    assert server.poll() is None
    assert file.read_text() == text
    file.unlink()
    assert TorchServe(run_dir).stop() is True
    assert not psutil.pid_exists(server.pid)
    assert not run_dir.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"pid": -1},
        {"pid": "12"},
        {"started": 1.0},
        {"started": "../x"},
        {"temp_dir": "/"},
        {"temp_dir": "/tmp/somebody"},
        {"temp_dir": "relative"},
        {"temp_dir": ""},
        {"archives": {"/a.mar": 5}},
        {"archives": []},
        {"further": 1},
    ],
)
def test_a_field_that_up_would_not_write_is_an_error(run_dir, server, change):
    (run_dir / "torchserve.json").write_bytes(orjson.dumps(asdict(state_of(server, run_dir)) | change))
    with pytest.raises(InvalidStateFile, match=r"torchserve\.json cannot be trusted"):
        TorchServe(run_dir).stop()
    assert server.poll() is None


def test_the_folder_of_somebody_else_is_neither_removed_nor_are_its_processes_ended(run_dir, server, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    (run_dir / "tmp").symlink_to(victim)
    write_state(run_dir, state_of(server, run_dir))
    with pytest.raises(InvalidStateFile, match="no folder of this user's"):
        TorchServe(run_dir).stop()
    assert server.poll() is None
    assert (victim / "file").exists()


def test_running_server_is_found_with_and_without_what_was_remembered(run_dir, server, stranger):
    found = find_server(state_of(server, run_dir))
    assert found is not None
    assert found.pid == server.pid
    assert [process.pid for process in find_servers(run_dir)] == [server.pid]
    assert find_servers(run_dir.parent / "other") == []


def test_a_server_that_was_started_there_by_an_older_version_is_found_by_its_folder(run_dir):
    command = [sys.executable, "-c", _SLEEP, "-Djava.io.tmpdir=/tmp/cifar-ts-x", "org.pytorch.serve.ModelServer"]
    with subprocess.Popen(command, cwd=run_dir) as process:
        assert [found.pid for found in find_servers(run_dir)] == [process.pid]
        process.kill()


def test_stopping_never_ends_a_process_that_is_not_the_server(run_dir, server, stranger):
    """Were the stranger taken for the server, it would be terminated."""
    for forged in (
        state_of(stranger, run_dir),  # the very process that is named, with its start
        replace(state_of(server, run_dir), pid=stranger.pid),  # the number came again
    ):
        write_state(run_dir, forged)
        assert find_server(forged) is None
    assert TorchServe(run_dir).stop() is True  # the real one, which is found without it
    assert not psutil.pid_exists(server.pid)
    assert stranger.poll() is None


def test_only_processes_that_run_with_the_folder_use_it(run_dir, server):
    folder = f"{run_dir}/tmp"
    arguments = ([folder], [f"{folder}x/.ts.sock.9000"], ["-Djava.io.tmpdir=/"], [f"{folder}/models/a"])
    others = [subprocess.Popen([sys.executable, "-c", _SLEEP, *more]) for more in arguments]
    worker = subprocess.Popen([sys.executable, "-c", _SLEEP, "--sock-name", f"{folder}/.ts.sock.9000"])
    try:
        assert {process.pid for process in find_users(folder)} == {server.pid, worker.pid}
    finally:
        for process in (*others, worker):
            process.kill()
            process.wait()


def test_the_server_of_another_user_is_named_with_that_user(run_dir, server, monkeypatch):
    monkeypatch.setattr("cifar.common.processes.os.getuid", lambda: os.geteuid() + 1)
    with pytest.raises(InvalidStateFile, match=rf"process {server.pid}\) is run by {psutil.Process().username()}"):
        find_server(state_of(server, run_dir))


def test_ended_process_is_not_found(run_dir):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        state = state_of(process, run_dir)
    assert find_server(state) is None
