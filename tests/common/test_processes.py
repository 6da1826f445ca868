"""Processes are known by what no step of the wall clock and no number that came again can change."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from cifar.common.processes import end_processes, find_own, find_process, identify


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "an argument"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("step_s", [-3600.0, 2.0, 86400.0 * 365])
def test_a_step_of_the_wall_clock_changes_nothing(other, monkeypatch, step_s):
    """The kernel derives the time of boot from the wall clock, and psutil a process's start from that."""
    started, created = identify(other.pid), psutil.Process(other.pid).create_time()
    booted = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + step_s)
    assert abs(psutil.Process(other.pid).create_time() - created) > 1  # what went wrong
    assert identify(other.pid) == started
    assert find_process(other.pid, started) is not None


def test_a_number_that_came_again_is_another_process(other):
    boot, _, ticks = identify(other.pid).partition("/")
    for forged in (f"{boot}/{int(ticks) - 1}", f"{'0' * 8}{boot[8:]}/{ticks}", f"created/{ticks}"):
        assert find_process(other.pid, forged) is None


def test_one_that_has_ended_is_not_found_not_even_as_a_zombie():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = identify(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        psutil.Process(process.pid)  # still there until somebody asks for its end
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert find_process(process.pid, started) is None
    assert find_process(process.pid, started) is None
    with pytest.raises(psutil.NoSuchProcess):
        identify(process.pid)


def test_where_there_is_no_proc_the_kernels_own_record_of_the_start_counts(other, monkeypatch, tmp_path):
    monkeypatch.setattr("cifar.common.processes._PROC", tmp_path)
    started = identify(other.pid)
    assert started.startswith("created/")
    assert find_process(other.pid, started) is not None
    assert find_process(other.pid, f"{started}1") is None


def test_a_name_with_spaces_and_parentheses_hides_no_field(tmp_path):
    program = tmp_path / "a) 1 (b"
    program.symlink_to(sys.executable)
    with subprocess.Popen([str(program), "-c", "input()"], stdin=subprocess.PIPE) as process:
        plain = identify(os.getpid())
        assert identify(process.pid).partition("/")[0] == plain.partition("/")[0]
        assert int(identify(process.pid).partition("/")[2]) >= int(plain.partition("/")[2])


def test_own_processes_are_found_by_their_arguments_and_ended(other):
    def matches(_process: psutil.Process, arguments: list[str]) -> bool:
        return arguments[-1:] == ["an argument"]

    found = find_own(matches)
    assert [process.pid for process in found] == [other.pid]
    end_processes(found)
    assert find_own(matches) == []


def test_one_that_does_not_end_when_asked_is_killed():
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end_processes([psutil.Process(process.pid)], timeout_s=0.2)
        assert not psutil.pid_exists(process.pid)
