"""Finds processes again, by what was remembered of them or by their arguments, and ends them."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from cifar.common.errors import InvalidStateFile
from cifar.common.state_file import text, whole_number

STOP_TIMEOUT_S = 30.0

_PROC = Path("/proc")
_START_FIELD = 22  # of /proc/PID/stat: the start in clock ticks since boot

# What a state file remembers of a process.
PROCESS_FIELDS = {
    "pid": whole_number(2, 2**31),
    "started": text(r"[\w-]{1,64}/[\d.]{1,32}", "a boot and a time since then"),
}


def identify(pid: int) -> str:
    """Return what distinguishes a process from every other one that has had, or will have, its number.

    On Linux that is the boot and the start in ticks since then, which no step of the wall clock changes. psutil's
    `create_time` would not do there: it adds the ticks to the time of boot, which the kernel derives from the wall
    clock. Elsewhere the kernel itself remembers the time at which a process was started.

    Raises:
        psutil.Error: no such process.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"created/{psutil.Process(pid).create_time():.2f}"
    # The second field is the program's name in parentheses, which may hold spaces and parentheses.
    return f"{boot}/{stat.rpartition(')')[2].split()[_START_FIELD - 3]}"


def find_process(pid: int, started: str) -> psutil.Process | None:
    """Return the process where it still runs.

    Args:
        pid: its number.
        started: what `identify` said when it was started; a number that came again is another process.
    """
    try:
        process = psutil.Process(pid)
        return process if identify(pid) == started and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def find_own(matches: Callable[[psutil.Process, list[str]], bool]) -> list[psutil.Process]:
    """Return the processes of this user that match, given each with its command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if is_own(process) and matches(process, process.cmdline()):
                found.append(process)
    return found


def is_own(process: psutil.Process) -> bool:
    """Whether it runs as this user; raises psutil.Error."""
    return bool(process.uids().real == os.getuid())


def describe(process: psutil.Process) -> str:
    """Return number and beginning of the command, for messages."""
    try:
        return f"{process.pid} ({' '.join(process.cmdline())[:60]}…)"
    except psutil.Error:
        return str(process.pid)


def distrust(path: Path, error: Exception, kind: str, running: Iterable[psutil.Process]) -> InvalidStateFile:
    """Return the error of a state file that cannot be trusted, with the processes that it should have remembered.

    Args:
        path: the file.
        error: what is wrong with it.
        kind: of the processes, in words.
        running: those that were found without the file.
    """
    found = ", ".join(map(describe, running)) or "none"
    return InvalidStateFile(
        f"{path} cannot be trusted: {error}. {kind} of this folder that run: {found}. Remove the file, then: "
        "cifar down, which finds them without it"
    )


def end_processes(processes: Iterable[psutil.Process], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Ask processes to end, and kill those that have not after some seconds."""
    waiting = list(processes)
    for signal in (psutil.Process.terminate, psutil.Process.kill):
        for process in waiting:
            with suppress(psutil.NoSuchProcess):
                signal(process)
        _gone, waiting = psutil.wait_procs(waiting, timeout=timeout_s)
