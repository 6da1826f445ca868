"""The monitor's processes: they outlive the command that starts them, and one small file remembers them."""

import os
import re
import signal
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import requests

from cifar.common.errors import MonitorFailed
from cifar.common.files import remove_leftovers
from cifar.common.processes import (
    PROCESS_FIELDS,
    distrust,
    end_processes,
    find_own,
    find_process,
    identify,
    is_own,
)
from cifar.common.state_file import Field, check_object, list_of, optional, read_state_file, write_state_file
from cifar.monitoring import receiver
from cifar.monitoring.programs import Program

_FILE = "processes.json"
_MAX_BYTES = 1 << 20
_FIELDS = {**PROCESS_FIELDS, "command": list_of(str, 100)}
_PROGRAM = optional(Field("an object", lambda value: isinstance(value, dict)))
_RELOAD_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 5.0
_PAUSE_S = 0.05
_EXEC_S = 1.0
_LOG_LINES = 15
_RELOADED = re.compile(r"^\w+_config_last_reload_success_timestamp_seconds (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class ProcessRecord:
    """A process that was started here.

    Attributes:
        pid: its number.
        started: when it was started, as another may get its number (cifar.common.processes.identify).
        command: what was run.
    """

    pid: int
    started: str
    command: list[str]

    @property
    def process(self) -> psutil.Process | None:
        """It, where it still runs, as this user and with these arguments."""
        process = find_process(self.pid, self.started)
        try:
            # A script's own name comes after that of its interpreter.
            arguments = self.command[1:]
            same = process is not None and process.cmdline()[-len(arguments) :] == arguments and is_own(process)
        except psutil.Error:
            return None
        return process if same else None


def read_records(folder: Path) -> dict[str, ProcessRecord]:
    """Return what was remembered, by the program's name; nothing where nothing was.

    Raises:
        InvalidStateFile: the file holds what `write_records` would not write.
    """
    path = folder / _FILE
    own = _own_arguments(folder)
    try:
        content = check_object(read_state_file(path, _MAX_BYTES), "it", dict.fromkeys(own, _PROGRAM))
        return {name: _read(name, entry, own[name]) for name, entry in content.items() if entry is not None}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise distrust(path, error, "Programs", find_running(folder).values()) from None


def find_running(folder: Path) -> dict[str, psutil.Process]:
    """Return the programs of this user that keep their data in a folder, whether or not they are remembered."""
    found = {}
    for name, own in _own_arguments(folder).items():
        for process in find_own(lambda _process, arguments, own=own: own <= set(arguments)):  # type: ignore[misc]
            found[name] = process
    return found


def write_records(folder: Path, records: dict[str, ProcessRecord]) -> None:
    """Remember, whole or not at all; nothing to remember is no file."""
    if records:
        write_state_file(folder / _FILE, {name: asdict(record) for name, record in records.items()})
    else:
        remove_leftovers(folder / _FILE)
        (folder / _FILE).unlink(missing_ok=True)


def spawn(program: Program) -> ProcessRecord:
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
    record = ProcessRecord(pid, identify(pid), list(program.command))
    deadline = time.monotonic() + _EXEC_S
    while record.process is None and time.monotonic() < deadline:  # for a moment it has no arguments yet
        time.sleep(_PAUSE_S)
    return record


def wait_until_ready(program: Program, record: ProcessRecord, timeout_s: float) -> None:
    """Raises MonitorFailed where it ends, or takes longer."""
    deadline = time.monotonic() + timeout_s
    while _get(program, "/-/ready") is None:
        if record.process is None:
            raise MonitorFailed(f"{program.name} was started and has ended", end_of_log(program))
        if time.monotonic() > deadline:
            raise MonitorFailed(
                f"{program.name} (process {record.pid}) is not ready after {timeout_s:g} s: {program.url}/-/ready",
                end_of_log(program),
            )
        time.sleep(_PAUSE_S)


def reload(program: Program, record: ProcessRecord) -> None:
    """Let a running program reload its configuration; raises MonitorFailed where it keeps the one before."""
    before = _last_reload(program)
    os.kill(record.pid, signal.SIGHUP)
    deadline = time.monotonic() + _RELOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        # Another time, not a later one: the wall clock may have been set back.
        if _last_reload(program) not in (None, before):
            return
        time.sleep(_PAUSE_S)
    raise MonitorFailed(
        f"{program.name} keeps the configuration that it had: it has not loaded the one that is there now",
        end_of_log(program),
    )


def terminate(records: Collection[ProcessRecord]) -> None:
    """End processes that run; those that do not end in time are killed."""
    end_processes([process for process in (record.process for record in records) if process is not None])


def end_of_log(program: Program) -> str:
    """Return its last lines."""
    try:
        lines = program.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_LINES:])


def _read(name: str, entry: object, own: set[str]) -> ProcessRecord:
    record = ProcessRecord(**check_object(entry, name, _FIELDS))
    if not own <= set(record.command):
        raise ValueError(f"{name} has a command that is not of this folder; expected {' and '.join(own)} in it")
    return record


def _own_arguments(folder: Path) -> dict[str, set[str]]:
    """Return the arguments that only this folder's programs are started with (cifar.monitoring.programs)."""
    return {
        "Alert log": {receiver.__file__, f"{folder}/alerts.jsonl"},
        "Alertmanager": {f"--storage.path={folder}/alertmanager"},
        "Prometheus": {f"--storage.tsdb.path={folder}/prometheus"},
    }


def _last_reload(program: Program) -> str | None:
    """Return the time at which it last loaded its configuration, as it reports it."""
    found = _RELOADED.search(_get(program, "/metrics") or "")
    return found[1] if found else None


def _get(program: Program, path: str) -> str | None:
    """Return what it answers with status 200, else None."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy leads to this machine
        try:
            answer = session.get(program.url + path, timeout=_ANSWER_TIMEOUT_S)
        except requests.RequestException:
            return None
    return answer.text if answer.status_code == requests.codes.ok else None
