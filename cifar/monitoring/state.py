"""What `cifar monitor` must remember for `cifar down`: one small file in the monitor's folder."""

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil

from cifar.common.errors import InvalidStateFile
from cifar.common.files import atomic_write, remove_leftovers
from cifar.common.processes import describe, find_own, find_process, is_own
from cifar.common.state_file import Field, check_object, list_of, optional, read_state_file, text, whole_number
from cifar.monitoring import receiver

_FILE = "processes.json"
_MAX_BYTES = 1 << 20
_FIELDS = {
    "pid": whole_number(2, 2**31),
    "started": text(r"[\w-]{1,64}/[\d.]{1,32}", "a boot and a time since then"),
    "command": list_of(str, 100),
}
_PROGRAM = optional(Field("an object", lambda value: isinstance(value, dict)))


@dataclass(frozen=True)
class Started:
    """A process that was started here.

    Attributes:
        pid: its number.
        started: what tells it from others with the same number (cifar.common.processes.identify).
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


def read_started(folder: Path) -> dict[str, Started]:
    """Return what was remembered, by the program's name; nothing where nothing was.

    Raises:
        InvalidStateFile: the file holds what `write_started` would not write.
    """
    path = folder / _FILE
    own = _own_arguments(folder)
    try:
        content = check_object(read_state_file(path, _MAX_BYTES), "it", dict.fromkeys(own, _PROGRAM))
        return {name: _read(name, entry, own[name]) for name, entry in content.items() if entry is not None}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        running = ", ".join(describe(process) for process in find_started(folder).values()) or "none"
        raise InvalidStateFile(
            f"{path} cannot be trusted: {error}. Programs of this folder that run: {running}. Remove the file, then: "
            "cifar down, which finds them without it"
        ) from None


def find_started(folder: Path) -> dict[str, psutil.Process]:
    """Return the programs of this user that keep their data in a folder, whether or not they are remembered."""
    found = {}
    for name, own in _own_arguments(folder).items():
        for process in find_own(lambda _process, arguments, own=own: own <= set(arguments)):  # type: ignore[misc]
            found[name] = process
    return found


def write_started(folder: Path, started: dict[str, Started]) -> None:
    """Remember, whole or not at all; nothing to remember is no file."""
    path = folder / _FILE
    remove_leftovers(path)  # of a process that was killed; whoever writes holds the lock
    if not started:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as temporary:
        content = {name: asdict(one) for name, one in started.items()}
        temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _read(name: str, entry: object, own: set[str]) -> Started:
    started = Started(**check_object(entry, name, _FIELDS))
    if not own <= set(started.command):
        raise ValueError(f"{name} has a command that is not of this folder; expected {' and '.join(own)} in it")
    return started


def _own_arguments(folder: Path) -> dict[str, set[str]]:
    """Return the arguments that only this folder's programs are started with (cifar.monitoring.programs)."""
    return {
        "Alert log": {receiver.__file__, f"{folder}/alerts.jsonl"},
        "Alertmanager": {f"--storage.path={folder}/alertmanager"},
        "Prometheus": {f"--storage.tsdb.path={folder}/prometheus"},
    }
