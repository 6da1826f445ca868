import os
import subprocess
import sys

import psutil
import pytest

from launcher.server import TorchServe
from launcher.state import RunState, find_server, read_state, write_state


@pytest.fixture
def own():
    """This very process, as if it were the server."""
    return RunState(os.getpid(), psutil.Process().create_time(), "/tmp/none", "config.properties", {})


def test_what_was_written_is_read(tmp_path, own):
    write_state(tmp_path, own)
    assert read_state(tmp_path) == own
    assert [file.name for file in tmp_path.iterdir()] == ["torchserve.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_file_that_is_no_state_is_as_none(tmp_path, text):
    (tmp_path / "torchserve.json").write_text(text)
    assert read_state(tmp_path) is None


def test_running_process_is_found(own):
    server = find_server(own)
    assert server is not None
    assert server.pid == os.getpid()


def test_process_id_that_came_again_is_another_process(own):
    assert find_server(RunState(own.pid, own.started - 100, own.temp_dir, own.config, {})) is None


def test_ended_process_is_not_found():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        state = RunState(process.pid, psutil.Process(process.pid).create_time(), "/tmp/none", "config.properties", {})
    assert find_server(state) is None


def test_stopping_never_ends_a_process_that_only_has_the_same_number(tmp_path):
    """The other process is a child of this test; were it taken for the server, it would be terminated."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            run_dir = tmp_path / "run"
            run_dir.mkdir()
            write_state(run_dir, RunState(other.pid, 1.0, str(tmp_path / "gone"), "config.properties", {}))
            assert TorchServe(run_dir).stop() is False
            assert other.poll() is None
        finally:
            other.kill()
