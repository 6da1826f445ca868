"""benchmarks/drift.py repeats the arithmetic of the drift rules; here Prometheus computes with the same counts."""

from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from benchmarks.drift_scores import Pool, count_pictures, score_windows
from cifar.archives.reference_outputs import synthetic_images
from cifar.common.project import class_names
from histogram import BOUNDS, bucket_label
from input_statistics import STATISTICS
from tests.alerts.promtool import promtool
from tests.alerts.rules import ROOT
from training.baseline import measure_baseline
from training.model import predict_probabilities

MINUTES, A_MINUTE, WINDOW = 20, 50, 15
RECORDED = {
    "CifarInputDrift": 'max(version_statistic:cifar_input_drift:ks15m{statistic!="confidence"})',
    "CifarPredictionMixShifted": "version:cifar_prediction_shift:distance15m",
    "CifarConfidenceFallen": "version:cifar_confidence_fall:difference15m",
}


def classify(images: torch.Tensor) -> torch.Tensor:
    """Ten classes, all of which are found, by ten numbers of a picture."""
    return torch.softmax(images.flatten(1)[:, :3000:300].float() / 20, dim=1)


@pytest.mark.parametrize("bright", [False, True])
def test_rules_and_calibration_compute_the_same(tmp_path, bright):
    images = synthetic_images()
    classifier: Any = classify
    baseline = measure_baseline(images, predict_probabilities(classifier, images), class_names())
    assert min(baseline["predictions"].values()) > 0
    # Bright pictures leave the lower buckets without a single count.
    pool = count_pictures(classifier, 255 - (255 - images) // 8 if bright else images)
    stream = np.random.default_rng(1).choice(len(images) // 2, MINUTES * A_MINUTE)
    scores = score_windows(pool, stream, np.array([len(stream)]), WINDOW * A_MINUTE, baseline)
    assert scores["CifarInputDrift"][0] > (0.5 if bright else 0.01)
    assert all(scores[alert][0] != 0 for alert in RECORDED)
    checks = [
        {
            "expr": f"abs({RECORDED[alert]} - {score:.9f}) < bool 1e-6",
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"labels": "{}" if "max" in RECORDED[alert] else LABELS, "value": 1}],
        }
        for alert, [score] in scores.items()
    ]
    files = ("recording.yaml", "input_drift.yaml", "thresholds.yaml")
    test = {
        "rule_files": [str(ROOT / "alerts" / name) for name in files],
        "tests": [{"interval": "1m", "input_series": series_of(pool, stream, baseline), "promql_expr_test": checks}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", tmp_path / "test.yaml")


LABELS = '{job="torchserve", model_version="1.0"}'


def series_of(pool: Pool, stream: NDArray[np.int64], baseline: Any) -> list[dict[str, str]]:
    """What Prometheus would have scraped once a minute; a counter that counts nothing is absent, as a worker's is."""
    ends = np.arange(MINUTES + 1) * A_MINUTE
    found = []

    def add(name: str, labels: str, values: Any) -> None:
        series = f'{name}{{job="torchserve",model_version="1.0"{labels}}}'
        found.append({"series": series, "values": " ".join(f"{value:.9g}" for value in values)})

    def count(name: str, labels: str, values: NDArray[Any]) -> None:
        total = np.concatenate([[0.0], values[stream].cumsum(dtype=np.float64)])[ends]
        if total[-1]:
            add(name, labels, total)

    ones = np.ones(len(pool.confidences))
    for index, label in enumerate(class_names()):
        count("cifar_predictions_total", f',label="{label}"', pool.labels[:, index])
        add("cifar_baseline_prediction_ratio", f',label="{label}"', [baseline["predictions"][label]] * len(ends))
    count("cifar_confidence_sum", "", pool.confidences)
    count("cifar_confidence_count", "", ones)
    measured = baseline["statistics"]
    add("cifar_baseline_mean", ',statistic="confidence"', [measured["confidence"]["mean"]] * len(ends))
    for name in STATISTICS:
        count(f"cifar_input_{name}_count", "", ones)
        for index, bound in enumerate(BOUNDS[f"cifar_input_{name}"]):
            le = bucket_label(bound)
            count(f"cifar_input_{name}_bucket", f',le="{le}"', pool.filled[name][:, index])
            share = [measured[name]["cumulative"][le]] * len(ends)
            add("cifar_baseline_bucket_ratio", f',statistic="{name}",le="{le}"', share)
    return found
