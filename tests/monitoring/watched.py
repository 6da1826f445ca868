"""A copy of the repository's configuration in a folder of its own, on free ports, with an alert that always fires."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from cifar.common.project import ROOT
from cifar.monitoring.monitor import Monitor
from tests.support.service import free_ports

ALWAYS = """
groups:
  - name: always
    rules:
      - alert: Always
        expr: vector(1)
        for: 8s  # Prometheus knows its Alertmanager after 5; what could not be sent is sent again after a minute
        labels: {severity: page, job: torchserve}
"""


def copy_configuration(folder: Path) -> Monitor:
    """Return a monitor that is not started; evaluation and grouping wait for less than the repository's."""
    if not shutil.which("prometheus") or not (shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")):
        if os.environ.get("CI"):
            pytest.fail("Prometheus or Alertmanager is missing: .ci/run installs them")
        pytest.skip("not installed: apt-get install prometheus prometheus-alertmanager")
    prometheus, alertmanager, alert_log, torchserve = free_ports(4)
    shutil.copytree(ROOT / "alerts", folder / "alerts")
    (folder / "alerts" / "always.yaml").write_text(ALWAYS)
    (folder / "targets").mkdir()
    for name, own, free in (
        ("prometheus.yml", "_interval: 5s", "_interval: 1s"),
        ("alertmanager.yml", "group_wait: 15s", "group_wait: 0s"),
        ("alertmanager.yml", "127.0.0.1:9095", f"127.0.0.1:{alert_log}"),
        ("targets/alertmanager.yml", "127.0.0.1:9093", f"127.0.0.1:{alertmanager}"),
        ("targets/torchserve.yml", "127.0.0.1:8082", f"127.0.0.1:{torchserve}"),
    ):
        target = folder / name
        text = (target if target.exists() else ROOT / name).read_text()
        assert own in text
        target.write_text(text.replace(own, free))
    return Monitor(
        folder / "monitor", folder / "prometheus.yml", folder / "alertmanager.yml", ("127.0.0.1", prometheus)
    )


def get(url: str, **query: str) -> Any:
    """Return the JSON that a program answers."""
    answer = requests.get(url, params=query, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def messages(monitor: Monitor) -> list[dict[str, Any]]:
    """Return what the alert log has noted."""
    log = monitor.folder / "alerts.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_until(holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
