"""What a process runs in: interpreter, machine, PyTorch and the installed packages."""

import os
import platform
from importlib.metadata import distributions
from pathlib import Path

import torch


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
