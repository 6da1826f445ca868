"""The baseline: counted as a worker counts, kept beside its weights, and never taken for that of others."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from cifar.common.files import digest_file
from cifar.common.project import class_names
from cifar.common.training_record import read_record
from histogram import BOUNDS, Histogram, bucket_label
from input_statistics import STATISTICS, describe_picture
from training.baseline import measure_baseline
from training.evaluate import BASELINE_NAME, read_baseline, write_baseline

REPOSITORY = Path(__file__).resolve().parents[2]
PRETRAINED = sorted((REPOSITORY / "training" / "pretrained").glob("*/best_cnn_model.pth"))


def pictures(count=40):
    scale = np.linspace(20, 255, count)[:, None, None, None]
    return (np.random.default_rng(5).random((count, 32, 32, 3)) * scale).astype(np.uint8)


def probabilities(*best):
    """One row an image: the class with its probability, the rest shared by the other nine."""
    rows = np.array([[(1 - value) / 9] * 10 for _index, value in best], dtype=np.float32)
    for row, (index, value) in zip(rows, best, strict=True):
        row[index] = value
    return rows


def test_predictions_and_confidence_are_shares_and_means():
    baseline = measure_baseline(pictures(4), probabilities((3, 0.5), (3, 0.75), (0, 0.96), (9, 1.0)), class_names())
    assert baseline["images"] == 4
    shares = {label: share for label, share in baseline["predictions"].items() if share}
    assert shares == {"cat": 0.5, "airplane": 0.25, "truck": 0.25}
    assert list(baseline["predictions"]) == list(class_names())
    confidence = baseline["statistics"]["confidence"]
    assert confidence["mean"] == pytest.approx((0.5 + 0.75 + 0.96 + 1) / 4)
    assert confidence["cumulative"] | {"0.5": 0.25, "0.8": 0.5, "0.95": 0.5, "0.99": 0.75} == confidence["cumulative"]


def test_buckets_are_those_in_which_a_worker_counts():
    images = pictures()
    baseline = measure_baseline(images, probabilities(*[(1, 0.9)] * len(images)), class_names())
    assert set(baseline["statistics"]) == {"confidence", *STATISTICS}
    for statistic in STATISTICS:
        counted = Histogram(BOUNDS[f"cifar_input_{statistic}"])
        for image in images:
            counted.observe(describe_picture(image)[statistic])
        buckets, total, count = counted.drain()
        measured = baseline["statistics"][statistic]
        assert measured["mean"] == pytest.approx(total / count)
        of_worker = {label: filled / count for label, filled in buckets if label != "+Inf"}
        assert {label: share for label, share in measured["cumulative"].items() if share} == pytest.approx(of_worker)


def test_a_baseline_of_other_weights_or_another_temperature_is_none(tmp_path):
    weights = tmp_path / "best_cnn_model.pth"
    assert read_baseline(weights, "w", 1.0) is None
    write_baseline({"images": 3}, weights, "w", 0.7)
    assert read_baseline(weights, "w", 0.7) == {"images": 3}
    assert read_baseline(weights, "v", 0.7) is None
    assert read_baseline(weights, "w", 1.0) is None


@pytest.mark.parametrize("weights", PRETRAINED, ids=lambda path: path.parent.name)
def test_shipped_weights_have_their_baseline_in_the_buckets_of_today(weights):
    baseline = read_baseline(weights, digest_file(weights), (read_record(weights) or {})["temperature"])
    assert baseline is not None
    assert sum(baseline["predictions"].values()) == pytest.approx(1)
    evaluation = orjson.loads((weights.parent / "evaluation.json").read_bytes())
    predicted = np.array(evaluation["confusion"]).sum(0) / evaluation["images"]
    assert list(baseline["predictions"].values()) == pytest.approx(predicted.tolist())
    for statistic, measured in baseline["statistics"].items():
        name = "cifar_confidence" if statistic == "confidence" else f"cifar_input_{statistic}"
        assert list(measured["cumulative"]) == [bucket_label(bound) for bound in BOUNDS[name]]


def test_pretrained_weights_were_found():
    assert [path.parent.name for path in PRETRAINED] == ["1.0", "2.0"]
    assert all((path.parent / BASELINE_NAME).exists() for path in PRETRAINED)
