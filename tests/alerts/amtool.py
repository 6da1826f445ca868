"""Alertmanager's own tool, in the repository root."""

import subprocess

from tests.alerts.rules import ROOT
from tests.support.programs import need


def amtool(*arguments: object) -> str:
    need("amtool")
    done = subprocess.run(["amtool", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
