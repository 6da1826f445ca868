"""What `cifar monitor` must remember for `cifar down`: one small file in the monitor's folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from launcher.processes import find_process
from training.atomic_write import atomic_write, remove_leftovers

_FILE = "processes.json"


@dataclass(frozen=True)
class Started:
    """A process that was started here."""

    pid: int
    started: float  # when it began, seconds since 1970: a number that came again is another process
    command: list[str]

    @property
    def process(self) -> psutil.Process | None:
        """It, where it still runs."""
        return find_process(self.pid, self.started)


def read_started(folder: Path) -> dict[str, Started]:
    """Return what was remembered, by the program's name; nothing where the file is no such file."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return {name: Started(**entry) for name, entry in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_started(folder: Path, started: dict[str, Started]) -> None:
    """Remember, whole or not at all; nothing to remember is no file."""
    path = folder / _FILE
    remove_leftovers(path)  # of a process that was killed; whoever writes holds the lock
    if not started:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({name: asdict(one) for name, one in started.items()}, indent=2) + "\n")
