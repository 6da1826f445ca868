"""Prometheus's own tool, in the repository root."""

import os
import shutil
import subprocess

import pytest

from tests.alerts.rules import ROOT


def promtool(*arguments: object) -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing: .ci/run installs it")
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
