"""Every benchmark can be started as its documentation says: a module beside it may have the name of a package."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.name for path in (REPOSITORY / "benchmarks").glob("*.py") if "__main__" in path.read_text())


def test_there_are_benchmarks():
    assert {"decoding.py", "served_accuracy.py", "training.py", "versions.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "fuzz_decoder.py"])  # atheris is not installed
def test_a_benchmark_tells_its_options(script):
    command = [sys.executable, "-m", f"benchmarks.{script.removesuffix('.py')}", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
