"""One process at a time works on a file or folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar.common.errors import Busy

WAIT_S = 300.0  # longer than any command holds a lock

_POLL_S = 0.05


@contextmanager
def exclusive(path: Path, timeout_s: float = WAIT_S) -> Iterator[None]:
    """Wait until no other process works on a file or folder; a missing folder is made. The lock goes with the process.

    Raises:
        Busy: another one still does after `timeout_s`.
    """
    with try_exclusive(path, timeout_s) as mine:
        if not mine:
            raise Busy(f"Another process has been working on {path} for {timeout_s:g} s; wait for its end, or end it")
        yield


@contextmanager
def try_exclusive(path: Path, timeout_s: float = 0.0) -> Iterator[bool]:
    """As `exclusive`; yield whether it succeeded within `timeout_s`."""
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)  # what is worked on is itself the lock: no file is left behind
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = True
                break
            except BlockingIOError:
                mine = False
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        yield mine
    finally:
        os.close(handle)
