"""What `cifar up` must remember for `cifar down`: one small file in the run folder."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from launcher.processes import find_process

_FILE = "torchserve.json"


@dataclass(frozen=True)
class RunState:
    """A TorchServe that was started here."""

    pid: int  # of its Java process
    started: float  # when that process began, seconds since 1970: a number that came again is another process
    temp_dir: str  # sockets, unpacked archives
    config: str  # the config.properties that it was started with
    archives: dict[str, int]  # what it was to load: absolute path to time of change, nanoseconds since 1970
    management_socket: str | None = None  # of its management API; a server that is killed leaves it


def read_state(run_dir: Path) -> RunState | None:
    """Return what was remembered; None where nothing was, or where the file is no such file."""
    try:
        return RunState(**json.loads((run_dir / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def started_archives(run_dir: Path) -> set[str] | None:
    """Return the file names of the archives that the server of a run folder was started with; None: not known."""
    state = read_state(run_dir)
    return {Path(archive).name for archive in state.archives} if state is not None else None


def write_state(run_dir: Path, state: RunState) -> None:
    """Remember, whole or not at all."""
    temporary = run_dir / f".{_FILE}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run_dir / _FILE)


def find_server(state: RunState) -> psutil.Process | None:
    """Return the server's process where it still runs."""
    return find_process(state.pid, state.started)
