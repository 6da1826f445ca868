"""The plain `prometheus` with prometheus.yml beside a real TorchServe: rules have values, and no alert fires."""

import time
from collections.abc import Callable

from cifar.archives.reference_outputs import synthetic_images
from cifar.client.inference import InferenceClient
from tests.alerts.rules import rules


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_every_rule_has_a_value_under_traffic_and_no_alert_fires(prometheus, torchserve):
    images = synthetic_images()  # those of the baseline (conftest.py)
    with InferenceClient(torchserve.url) as client:
        end = time.monotonic() + 12
        while time.monotonic() < end:
            for start in range(0, len(images), 50):
                client.predict(images[start : start + 50])
                time.sleep(0.02)
    torchserve.post(b"short", "application/octet-stream")
    recorded = {rule["record"] for rule in rules("record")}
    recorded.remove("version:cifar_disagreement:distance1h")  # wants two versions
    assert len(recorded) > 30
    for name in recorded:
        wait_until(lambda name=name: prometheus.now(name))  # type: ignore[misc]
    [live] = prometheus.now("version:cifar_live_workers:count1m")
    assert live.labels == {
        "__name__": "version:cifar_live_workers:count1m",
        "job": "torchserve",
        "model_version": "1.0",
    }
    [shift] = prometheus.now("version:cifar_prediction_shift:distance15m")
    assert 0 <= shift.points[-1][1] < 0.05
    drift = {
        series.labels["statistic"]: series.points[-1][1]
        for series in prometheus.now("version_statistic:cifar_input_drift:ks15m")
    }
    assert set(drift) == {"confidence", "brightness", "contrast", "colour_balance", "sharpness"}
    assert drift["confidence"] < 0.05
    [p99] = prometheus.now("version:cifar_handle_seconds:p99_5m")
    assert 0.0005 < p99.points[-1][1] < 1
    assert prometheus.now('ALERTS{alertstate="firing"}') == []
