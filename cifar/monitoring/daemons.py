"""Processes that go on when the command that started them has ended."""

import os
import re
import signal
import time
from collections.abc import Collection

import requests

from cifar.common.errors import MonitorFailed
from cifar.common.processes import end_processes, identify
from cifar.monitoring.programs import Program
from cifar.monitoring.state import Started

_RELOAD_TIMEOUT_S = 10.0
_ASK_TIMEOUT_S = 5.0
_PAUSE_S = 0.05
_EXEC_S = 1.0
_LOG_LINES = 15
_RELOADED = re.compile(r"^\w+_config_last_reload_success_timestamp_seconds (\S+)$", re.MULTILINE)


def spawn(program: Program) -> Started:
    """Start a program that no Ctrl-C in this terminal reaches."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    pid = os.posix_spawn(
        program.command[0],
        program.command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(program.log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    started = Started(pid, identify(pid), list(program.command))
    deadline = time.monotonic() + _EXEC_S
    while started.process is None and time.monotonic() < deadline:  # for a moment it has no arguments yet
        time.sleep(_PAUSE_S)
    return started


def wait_until_ready(program: Program, started: Started, timeout_s: float) -> None:
    """Raises MonitorFailed where it ends, or takes longer."""
    deadline = time.monotonic() + timeout_s
    while _ask(program, "/-/ready") is None:
        if started.process is None:
            raise MonitorFailed(f"{program.name} was started and has ended", end_of_log(program))
        if time.monotonic() > deadline:
            raise MonitorFailed(
                f"{program.name} (process {started.pid}) is not ready after {timeout_s:g} s: {program.url}/-/ready",
                end_of_log(program),
            )
        time.sleep(_PAUSE_S)


def reload(program: Program, started: Started) -> None:
    """Let a running program read its configuration anew; raises MonitorFailed where it keeps the one before."""
    before = _last_reload(program)
    os.kill(started.pid, signal.SIGHUP)
    deadline = time.monotonic() + _RELOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        # Another time, not a later one: the wall clock may have been set back.
        if _last_reload(program) not in (None, before):
            return
        time.sleep(_PAUSE_S)
    raise MonitorFailed(
        f"{program.name} goes on with the configuration that it had: it has not taken the one that is there now",
        end_of_log(program),
    )


def end(started: Collection[Started]) -> None:
    """End processes that run; whoever does not end when asked is killed."""
    end_processes([process for process in (one.process for one in started) if process is not None])


def end_of_log(program: Program) -> str:
    """Return its last lines."""
    try:
        lines = program.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_LINES:])


def _last_reload(program: Program) -> str | None:
    """Return the time at which it last took its configuration, as it tells it."""
    found = _RELOADED.search(_ask(program, "/metrics") or "")
    return found[1] if found else None


def _ask(program: Program, path: str) -> str | None:
    """Return what it answers with status 200, else None."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy leads to this machine
        try:
            answer = session.get(program.url + path, timeout=_ASK_TIMEOUT_S)
        except requests.RequestException:
            return None
    return answer.text if answer.status_code == requests.codes.ok else None
