"""What the counters hand over, and that metrics.yaml declares it, with TorchServe's own metrics cache."""

import logging
import re
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

import telemetry
from telemetry import Telemetry

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # importing ts leaves its version file to the garbage collector
    import ts
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

METRICS_FILE = Path(telemetry.__file__).with_name("metrics.yaml")
_LINE = re.compile(r"\[METRICS\](\w+)\.Count:(\d+)\|#([^|]*)\|#type:COUNTER")


@pytest.fixture
def metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file to the garbage collector
        cache = MetricsCacheYamlImpl(config_file_path=str(METRICS_FILE))
    cache.initialize_cache()
    return cache


@pytest.fixture
def lines(caplog):
    """Return a function that gives the lines which the front end would read: name, labels, value."""
    caplog.set_level(logging.INFO)

    def read() -> dict[tuple[str, str], int]:
        found = [_LINE.match(record.getMessage()) for record in caplog.records]
        return {(match[1], match[3]): int(match[2]) for match in found if match}

    return read


def test_batches_are_counted_in_cumulative_buckets(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1.2")
    for requests in (1, 2, 3, 64, 65):
        counters.count_batch(requests)
    counters.hand_over()
    labels = "model_version:1.2,le:{},ModelName:cifar,Level:Model"
    buckets = {le: lines()["cifar_batch_size_bucket", labels.format(le)] for le in ("1", "2", "4", "32", "64", "+Inf")}
    assert buckets == {"1": 1, "2": 2, "4": 3, "32": 3, "64": 4, "+Inf": 5}
    common = "model_version:1.2,ModelName:cifar,Level:Model"
    assert lines()["cifar_batch_size_sum", common] == 135
    assert lines()["cifar_batch_size_count", common] == 5


def test_refusals_are_counted_by_their_reason(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1.2")
    for code in ("nan", "boolean", "nan"):
        counters.count_rejection(code)
    counters.hand_over()
    labels = "model_version:1.2,reason:{},ModelName:cifar,Level:Model"
    counted = {reason: lines()["cifar_rejected_inputs_total", labels.format(reason)] for reason in ("nan", "boolean")}
    assert counted == {"nan": 2, "boolean": 1}


def test_counts_are_handed_over_once_and_without_being_asked(metrics, lines, monkeypatch):
    monkeypatch.setattr(telemetry, "HAND_OVER_AFTER_S", 0.05)
    counters = Telemetry(metrics, "cifar", "1")
    for _ in range(50):
        counters.count_rejection("nan")
    deadline = time.monotonic() + 5
    while not lines() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(lines().values()) == [50]
    counters.hand_over()
    assert list(lines().values()) == [50]


def test_a_version_cannot_break_the_line_apart(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1,0|x:y z")
    counters.count_rejection("nan")
    counters.hand_over()
    assert list(lines()) == [
        ("cifar_rejected_inputs_total", "model_version:1_0_x_y_z,reason:nan,ModelName:cifar,Level:Model")
    ]


def test_a_server_that_declares_none_of_the_metrics_is_told_once_and_serves(lines, caplog):
    class Nothing:
        def get_metric(self, name: str) -> Any:
            raise KeyError(name)

    counters = Telemetry(Nothing(), "cifar", "1")
    counters.count_batch(1)
    counters.hand_over()
    counters.count_batch(1)
    counters.hand_over()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "metrics_config" in caplog.text


def test_torchserves_own_metrics_are_repeated_whole():
    own = Path(ts.__file__).parent / "configs" / "metrics.yaml"
    theirs, ours = yaml.safe_load(own.read_text()), yaml.safe_load(METRICS_FILE.read_text())
    assert ours["ts_metrics"] == theirs["ts_metrics"]
    assert ours["model_metrics"]["gauge"] == theirs["model_metrics"]["gauge"]
