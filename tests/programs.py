"""Programs that are no packages of Python: where one is missing, its tests are skipped, but fail in CI."""

import os
import shutil
import subprocess

import pytest

from launcher.server import ROOT


def need(program: str) -> None:
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing: .ci/run installs it")
        pytest.skip(f"{program} is not installed: apt-get install prometheus")


def promtool(*arguments: object) -> None:
    need("promtool")
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
