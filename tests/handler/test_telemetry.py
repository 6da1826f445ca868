"""What the counters hand over, and that metrics.yaml declares it, with TorchServe's own metrics cache."""

import logging
import re
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import telemetry
from histogram import BOUNDS
from telemetry import Telemetry

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # importing ts leaves its version file to the garbage collector
    import ts
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

METRICS_FILE = Path(telemetry.__file__).with_name("metrics.yaml")
_LINE = re.compile(r"\[METRICS\](\w+)\.Count:([\d.e-]+)\|#([^|]*)\|#type:(?:COUNTER|GAUGE)")


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

    def read() -> dict[tuple[str, str], float]:
        found = [_LINE.match(record.getMessage()) for record in caplog.records]
        return {(match[1], match[3]): float(match[2]) for match in found if match}

    return read


def test_batches_are_counted_in_cumulative_buckets(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1.2")
    for requests in (1, 2, 3, 64, 65):
        counters.count_batch(requests)
    counters.flush()
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
    counters.flush()
    labels = "model_version:1.2,reason:{},ModelName:cifar,Level:Model"
    counted = {reason: lines()["cifar_rejected_inputs_total", labels.format(reason)] for reason in ("nan", "boolean")}
    assert counted == {"nan": 2, "boolean": 1}


def test_the_build_is_told_at_once(metrics, lines):
    Telemetry(metrics, "cifar", "1.2").set_build_info("fb5f93e66d68", "")
    labels = "model_version:1.2,digest:fb5f93e66d68,commit:unknown,ModelName:cifar,Level:Model"
    assert lines() == {("cifar_build_info", labels): 1}


def test_a_start_is_told_at_once_because_the_worker_may_die_while_it_loads(metrics, lines):
    Telemetry(metrics, "cifar", "1.2").count_start()
    labels = "model_version:1.2,ModelName:cifar,Level:Model"
    assert lines() == {("cifar_worker_starts_total", labels): 1, ("cifar_failed_requests_total", labels): 0}


def test_a_worker_tells_that_it_lives_without_being_asked(metrics, lines, monkeypatch):
    monkeypatch.setattr(telemetry, "HEARTBEAT_S", 0.02)
    counters = Telemetry(metrics, "cifar", "1.2")
    counters.start_heartbeat()
    time.sleep(0.2)
    counters.flush()
    labels = "model_version:1.2,ModelName:cifar,Level:Model"
    assert 3 <= lines()["cifar_worker_heartbeats_total", labels] <= 11
    counters._metrics = None  # ends the thread


def test_predictions_are_counted_by_label_and_confidence(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1.2")
    counters.count_predictions(np.array([[0.9, 0.1], [0.25, 0.75], [0.97, 0.03]], np.float32), ["cat", "sea horse"])
    counters.flush()
    counted = {
        labels.split("label:")[1].split(",")[0]: value
        for (name, labels), value in lines().items()
        if name == "cifar_predictions_total"
    }
    assert counted == {"cat": 2, "sea_horse": 1}
    labels = "model_version:1.2,le:{},ModelName:cifar,Level:Model"
    assert lines()["cifar_confidence_bucket", labels.format("0.8")] == 1
    assert lines()["cifar_confidence_bucket", labels.format("0.99")] == 3
    assert lines()["cifar_confidence_sum", "model_version:1.2,ModelName:cifar,Level:Model"] == pytest.approx(2.62)


def test_a_stage_is_counted_for_each_request_that_was_in_it(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1.2")
    counters.count_stages({"decode": 0.0004, "inference": 0.009}, 16)
    counters.count_stages({"decode": 0.0004, "inference": 0.5}, 1)
    counters.flush()
    labels = "model_version:1.2,stage:inference,{}ModelName:cifar,Level:Model"
    assert lines()["cifar_stage_seconds_bucket", labels.format("le:0.01,")] == 16
    assert ("cifar_stage_seconds_bucket", labels.format("le:0.0082,")) not in lines()
    assert lines()["cifar_stage_seconds_count", labels.format("")] == 17
    assert lines()["cifar_stage_seconds_sum", labels.format("")] == pytest.approx(0.644)


def test_inputs_are_counted_by_request_and_measured_on_one_picture_a_batch(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1.2")
    white, black = np.full((3, 32, 32, 3), 255, np.uint8), np.zeros((1, 32, 32, 3), np.float32)
    counters.count_inputs([white, black])
    counters.flush()
    common = "model_version:1.2,ModelName:cifar,Level:Model"
    assert lines()["cifar_images_per_request_sum", common] == 4
    assert lines()["cifar_images_per_request_count", common] == 2
    for statistic, value in (("brightness", 1), ("contrast", 0), ("colour_balance", 0.5), ("sharpness", 0)):
        assert lines()[f"cifar_input_{statistic}_count", common] == 1
        assert lines()[f"cifar_input_{statistic}_sum", common] == pytest.approx(value, abs=1e-6)


def test_the_baseline_is_told_by_label_statistic_and_bucket(metrics, lines):
    measured = {"mean": 0.8, "cumulative": {"0.5": 0.1, "0.9": 0.6}}
    baseline = {"images": 9, "predictions": {"cat": 0.25, "sea horse": 0.75}, "statistics": {"confidence": measured}}
    Telemetry(metrics, "cifar", "1.2").set_baseline(baseline)
    labels = "model_version:1.2,{}ModelName:cifar,Level:Model"
    assert lines() == {
        ("cifar_baseline_prediction_ratio", labels.format("label:cat,")): 0.25,
        ("cifar_baseline_prediction_ratio", labels.format("label:sea_horse,")): 0.75,
        ("cifar_baseline_mean", labels.format("statistic:confidence,")): 0.8,
        ("cifar_baseline_bucket_ratio", labels.format("statistic:confidence,le:0.5,")): 0.1,
        ("cifar_baseline_bucket_ratio", labels.format("statistic:confidence,le:0.9,")): 0.6,
    }


@pytest.mark.parametrize(
    "baseline", [{"predictions": []}, {"statistics": {"confidence": {"mean": "much"}}}, {"statistics": {"x": 1}}, "?"]
)
def test_a_baseline_that_is_none_is_said_in_the_log_and_counting_goes_on(metrics, lines, caplog, baseline):
    counters = Telemetry(metrics, "cifar", "1.2")
    counters.set_baseline(baseline)
    assert lines() == {}
    assert "is not as training/baseline.py measures it" in caplog.text
    counters.set_baseline(None)
    counters.count_batch(1)
    counters.flush()
    assert ("cifar_batch_size_count", "model_version:1.2,ModelName:cifar,Level:Model") in lines()


def test_everything_that_is_counted_is_declared_with_its_labels_in_order():
    declared = yaml.safe_load(METRICS_FILE.read_text())["model_metrics"]
    names = {metric["name"]: metric["dimensions"] for metric in declared["counter"]}
    for name in BOUNDS:
        own = ["stage"] if name == "cifar_stage_seconds" else []
        assert names.pop(f"{name}_bucket") == ["model_version", *own, "le", "ModelName", "Level"]
        for suffix in ("sum", "count"):
            assert names.pop(f"{name}_{suffix}") == ["model_version", *own, "ModelName", "Level"]
    assert set(names) == {
        "cifar_failed_requests_total",
        "cifar_predictions_total",
        "cifar_rejected_inputs_total",
        "cifar_worker_starts_total",
        "cifar_worker_heartbeats_total",
    }
    gauges = {metric["name"]: metric["dimensions"] for metric in declared["gauge"]}
    common = ["ModelName", "Level"]
    assert gauges["cifar_build_info"] == ["model_version", "digest", "commit", *common]
    assert gauges["cifar_baseline_prediction_ratio"] == ["model_version", "label", *common]
    assert gauges["cifar_baseline_mean"] == ["model_version", "statistic", *common]
    assert gauges["cifar_baseline_bucket_ratio"] == ["model_version", "statistic", "le", *common]


def test_a_quantile_between_1_and_220_milliseconds_is_told_within_a_quarter():
    bounds = [bound for bound in BOUNDS["cifar_stage_seconds"] if 0.001 <= bound <= 0.22]
    assert (bounds[0], bounds[-1]) == (0.001, 0.22)
    assert max(high / low for low, high in pairwise(bounds)) <= 1.25 + 1e-9


def test_counts_are_handed_over_once_and_without_being_asked(metrics, lines, monkeypatch):
    monkeypatch.setattr(telemetry, "FLUSH_INTERVAL_S", 0.05)
    counters = Telemetry(metrics, "cifar", "1")
    for _ in range(50):
        counters.count_rejection("nan")
    deadline = time.monotonic() + 5
    while not lines() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(lines().values()) == [50]
    counters.flush()
    assert list(lines().values()) == [50]


def test_a_version_cannot_break_the_line_apart(metrics, lines):
    counters = Telemetry(metrics, "cifar", "1,0|x:y z")
    counters.count_rejection("nan")
    counters.flush()
    assert list(lines()) == [
        ("cifar_rejected_inputs_total", "model_version:1_0_x_y_z,reason:nan,ModelName:cifar,Level:Model")
    ]


def test_a_server_that_declares_none_of_the_metrics_is_told_once_and_serves(lines, caplog):
    class Nothing:
        def get_metric(self, name: str) -> Any:
            raise KeyError(name)

    counters = Telemetry(Nothing(), "cifar", "1")
    counters.count_batch(1)
    counters.flush()
    counters.count_batch(1)
    counters.flush()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "metrics_config" in caplog.text


def test_torchserves_own_metrics_are_repeated_whole():
    own = Path(ts.__file__).parent / "configs" / "metrics.yaml"
    theirs, ours = yaml.safe_load(own.read_text()), yaml.safe_load(METRICS_FILE.read_text())
    assert ours["ts_metrics"] == theirs["ts_metrics"]
    gauges = theirs["model_metrics"]["gauge"]
    assert ours["model_metrics"]["gauge"][: len(gauges)] == gauges
