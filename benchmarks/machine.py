"""What a benchmark ran on."""

import platform
from pathlib import Path


def processor() -> str:
    """Return the processor's name; Linux has it in one file only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
