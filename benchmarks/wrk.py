"""Loads a server with wrk (Debian's package), one image as raw bytes in each request."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.errors import TrainingError

_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "application/octet-stream"
"""


class Measured(NamedTuple):
    """What one turn gave: requests a second, and milliseconds of the median and of the 99th percentile."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


def write_script(folder: Path) -> Path:
    """Write what wrk is to send into a folder; raises TrainingError where wrk is not installed."""
    if shutil.which("wrk") is None:
        raise TrainingError("wrk is not installed: apt-get install wrk")
    body = folder / "image.bin"
    body.write_bytes(np.random.default_rng(0).integers(0, 256, 3072, dtype=np.uint8).tobytes())
    script = folder / "post.lua"
    script.write_text(_SCRIPT.format(body=body), encoding="utf-8")
    return script


def load(url: str, version: str, connections: int, seconds: int, script: Path) -> Measured:
    """Load one version of the server at `url`; raises TrainingError where a request was not answered."""
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    done = subprocess.run([*command, f"{url}/predictions/cifar/{version}"], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise TrainingError(f"not every request was answered: {done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    median, last = (re.search(rf"\s{share}%\s+([\d.]+)(us|ms|s)", done.stdout) for share in (50, 99))
    if not (rate and median and last):
        raise TrainingError(f"wrk printed something else than expected: {done.stdout}")
    return Measured(float(rate[1]), _milliseconds(median), _milliseconds(last))


def _milliseconds(found: re.Match[str]) -> float:
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
