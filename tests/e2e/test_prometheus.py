"""The plain `prometheus` with prometheus.yml beside a real TorchServe: rules have values, and no alert fires."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from client.inference import InferenceClient
from launcher.server import ROOT
from tests.alerts.rules import rules
from tests.e2e.service import free_ports
from training.certificate import synthetic_images


@pytest.fixture(scope="module")
def prometheus(torchserve, tmp_path_factory) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """A Prometheus on a free port that looks every second; return a function that asks it."""
    if shutil.which("prometheus") is None:
        if os.environ.get("CI"):
            pytest.fail("prometheus is missing: .ci/run installs it")
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    text = (ROOT / "prometheus.yml").read_text()
    for own, ours in (("_interval: 5s", "_interval: 1s"), ("alerts/*", f"{ROOT}/alerts/*")):
        assert own in text
        text = text.replace(own, ours)
    (folder / "prometheus.yml").write_text(text)
    targets = folder / "targets"
    targets.mkdir()
    address = torchserve.server.addresses.metrics.removeprefix("http://")
    (targets / "torchserve.yml").write_text(json.dumps([{"targets": [address]}]))
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)

    def ask(expression: str) -> list[dict[str, Any]]:
        answer = requests.get(f"http://{address}/api/v1/query", params={"query": expression}, timeout=10)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])

    try:
        wait_until(lambda: is_ready(address), folder / "log")
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def is_ready(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/-/ready", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def wait_until(holds: Callable[[], object], log: Path | None = None) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, log.read_text() if log else ""
        time.sleep(0.2)


def test_every_rule_has_a_value_under_traffic_and_no_alert_fires(prometheus, torchserve):
    pictures = synthetic_images()  # those of the baseline (conftest.py)
    with InferenceClient(torchserve.url) as client:
        end = time.monotonic() + 12
        while time.monotonic() < end:
            for start in range(0, len(pictures), 50):
                client.predict(pictures[start : start + 50])
                time.sleep(0.02)
    torchserve.post(b"short", "application/octet-stream")
    recorded = {rule["record"] for rule in rules("record")}
    recorded.remove("version:cifar_disagreement:distance1h")  # wants two versions
    assert len(recorded) > 30
    for name in recorded:
        wait_until(lambda name=name: prometheus(name))  # type: ignore[misc]
    [live] = prometheus("version:cifar_live_workers:count1m")
    assert live["metric"] == {
        "__name__": "version:cifar_live_workers:count1m",
        "job": "torchserve",
        "model_version": "1.0",
    }
    [shift] = prometheus("version:cifar_prediction_shift:distance15m")
    assert 0 <= float(shift["value"][1]) < 0.05
    drift = {
        it["metric"]["statistic"]: float(it["value"][1])
        for it in prometheus("version_statistic:cifar_input_drift:ks15m")
    }
    assert set(drift) == {"confidence", "brightness", "contrast", "colour_balance", "sharpness"}
    assert drift["confidence"] < 0.05
    [p99] = prometheus("version:cifar_handle_seconds:p99_5m")
    assert 0.0005 < float(p99["value"][1]) < 1
    assert prometheus('ALERTS{alertstate="firing"}') == []
