"""What a process runs in: git commit, interpreter, machine, PyTorch and the installed packages."""

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import torch

_FILE = Path(__file__).resolve()


def describe_environment() -> dict[str, str]:
    """Return what speed and results depend on besides code, data and parameters; `cuda…` only where there is a GPU."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": str(os.cpu_count()),
        "torch": torch.__version__,
        "torch_threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        facts |= {"cuda": str(torch.version.cuda), "cuda_device": torch.cuda.get_device_name()}
    return facts


def installed_distributions() -> list[str]:
    """Return `name==version` of every distribution that can be imported from here, sorted by name."""
    # A name may be found twice, in two folders of sys.path; the first one is imported.
    found: dict[str, str] = {}
    for distribution in distributions():
        if "Name" in distribution.metadata:  # a half-removed package leaves a folder without metadata
            found.setdefault(distribution.name, f"{distribution.name}=={distribution.version}")
    return sorted(found.values(), key=str.lower)


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit(file: Path = _FILE) -> str:
    """Return the commit's hash, with `-dirty` behind it where tracked files differ; `unknown` outside a checkout.

    `dvc.lock` may differ: `dvc repro` writes it after each stage, before the next one asks.

    Args:
        file: the code that is asked about; a copy installed inside another project's checkout is none of its files.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        root = Path(_git(file.parent, "rev-parse", "--show-toplevel"))
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude,glob)**/dvc.lock")
        return f"{commit}-dirty" if changed else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=True,
    )
    return done.stdout.strip()
