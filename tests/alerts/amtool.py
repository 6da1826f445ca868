"""Alertmanager's own tool, in the repository root."""

import os
import shutil
import subprocess

import pytest

from tests.alerts.rules import ROOT


def amtool(*arguments: object) -> str:
    if shutil.which("amtool") is None:
        if os.environ.get("CI"):
            pytest.fail("amtool is missing: .ci/run installs it")
        pytest.skip("amtool is not installed: apt-get install prometheus-alertmanager")
    done = subprocess.run(["amtool", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
