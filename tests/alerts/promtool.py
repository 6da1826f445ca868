"""Prometheus's own tool, in the repository root."""

import subprocess

from tests.alerts.rules import ROOT
from tests.support.programs import need


def promtool(*arguments: object) -> None:
    need("promtool")
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
