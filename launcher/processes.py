"""Finds a process that was remembered by its number."""

import psutil


def find_process(pid: int, started: float) -> psutil.Process | None:
    """Return the process where it still runs.

    Args:
        pid: its number.
        started: when it began, seconds since 1970: a number that came again is another process.
    """
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
