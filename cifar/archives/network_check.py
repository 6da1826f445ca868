"""Runs an archive's network on its reference images, in another process that may do nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from cifar.archives.sandbox import CPU_S, MAX_OUTPUT
from cifar.common.errors import ArchiveRejected
from cifar.common.project import ROOT

NO_ISOLATION = 3  # the exit code of cifar/archives/check_in_subprocess.py where it did not run the network
TIMEOUT_S = 120.0


def check_network(called: Path, model: Path, signed: bool) -> str | None:
    """Check that a network answers as it was exported.

    Args:
        called: the archive's name in messages.
        model: its TorchScript file, in a folder of its own.
        signed: it may run even where this machine cannot isolate it.

    Returns:
        Why it was not run; None: it was.

    Raises:
        ArchiveRejected: it answers otherwise, or not at all, or wants more than is allowed.
    """
    command = [
        sys.executable,
        "-m",
        "cifar.archives.check_in_subprocess",
        str(model),
        *(["--signed"] if signed else []),
    ]
    errors = model.with_name("errors")
    try:
        with errors.open("wb") as file:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                cwd=model.parent,
                env=_environment(model.parent),
                timeout=TIMEOUT_S,
                check=False,
            ).returncode
    except subprocess.TimeoutExpired:
        raise ArchiveRejected(f"The network in {called} did not answer within {TIMEOUT_S:g} s") from None
    if code == 0:
        return None
    reason = _last_line(errors)
    if code == NO_ISOLATION:
        return reason
    if code == -signal.SIGXCPU:
        reason = f"it takes more than {CPU_S} s of a CPU"
    elif code < 0 or not reason:
        reason = f"its process ended with {code}"
    raise ArchiveRejected(f"The network in {called} does not answer as it was exported: {reason}")


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours, which may hold keys and passwords, but where libraries are."""
    # One thread: the server needs the cores. No GPU: the check is of the numbers.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    own = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    return kept | own | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _last_line(file: Path) -> str:
    with file.open("rb") as stream:
        lines = stream.read(2 * MAX_OUTPUT).decode("utf-8", "replace").strip().splitlines()
    return "".join(letter for letter in lines[-1] if letter.isprintable())[:400] if lines else ""
