"""The gate: what is rejected, and by how much."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from cifar.common.files import digest_file, write_json
from cifar.common.project import class_names
from training.errors import GateFailed, ParameterError
from training.gate import GateParams, check_gate
from training.params import load_params

REPOSITORY = Path(__file__).resolve().parents[2]
LENIENT = GateParams(0.8, 0.5, 0.4, 0.05, None, 0.01)


@pytest.fixture
def measured(tmp_path):
    """Weights with metrics: 84 % right, the worst class 60 %, 55 % of the corrupted, 2 % off in confidence."""

    def make(name="weights", **changes):
        weights = tmp_path / name / "best_cnn_model.pth"
        weights.parent.mkdir()
        weights.write_bytes(name.encode())
        recalls = dict.fromkeys(class_names(), 0.9) | {"cat": 0.6}
        metrics = {
            "accuracy": 0.84,
            "corrupted_accuracy": 0.55,
            "calibration_error": 0.02,
            "classes": {label: {"precision": 0.9, "recall": recall} for label, recall in recalls.items()},
            "data_digest": "d",
            "weights_digest": digest_file(weights),
        }
        write_json(metrics | changes, weights.parent / "evaluation.json")
        return weights

    return make


def test_good_metrics_pass(measured):
    check_gate(measured(), LENIENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_accuracy": 0.9}, "accuracy is 84.00%, 6.00% below gate.min_accuracy (90.00%)"),
        ({"min_class_recall": 0.65}, "recall of cat, the worst class, is 60.00%, 5.00% below gate.min_class_recall"),
        ({"min_corrupted_accuracy": 0.56}, "accuracy on corrupted images is 55.00%, 1.00% below"),
        ({"max_calibration_error": 0.01}, "calibration error is 2.00%, 1.00% above gate.max_calibration_error (1.00%)"),
    ],
)
def test_each_threshold_rejects_and_says_by_how_much(measured, change, message):
    with pytest.raises(GateFailed, match=re.escape(message)):
        check_gate(measured(), dataclasses.replace(LENIENT, **change))


def test_a_threshold_that_is_just_met_passes(measured):
    check_gate(measured(), GateParams(0.84, 0.6, 0.55, 0.02, None, 0.0))


def test_all_failures_are_reported_at_once(measured):
    with pytest.raises(GateFailed) as caught:
        check_gate(measured(), GateParams(0.9, 0.7, 0.6, 0.01, None, 0.0))
    assert str(caught.value).count(";") == 3


@pytest.mark.parametrize("metric", ["accuracy", "corrupted_accuracy", "calibration_error"])
def test_a_metric_that_is_no_number_does_not_pass(measured, metric):
    with pytest.raises(GateFailed):
        check_gate(measured(**{metric: float("nan")}), LENIENT)


def test_weights_worse_than_the_reference_are_rejected_beyond_the_margin(measured):
    reference = measured("reference", accuracy=0.87)
    params = dataclasses.replace(LENIENT, reference=str(reference), max_accuracy_drop=0.02)
    with pytest.raises(
        GateFailed, match=r"accuracy is 3\.00% below the 87\.00% of .*; .*max_accuracy_drop allows 2\.00%"
    ):
        check_gate(measured(), params)
    check_gate(measured("better", accuracy=0.86), params)


def test_a_reference_measured_on_other_images_is_said_to_be(measured):
    reference = measured("reference", accuracy=0.9, data_digest="other")
    with pytest.raises(GateFailed, match="measured on other images"):
        check_gate(measured(), dataclasses.replace(LENIENT, reference=str(reference)))


def test_weights_that_nobody_measured_are_rejected_with_the_command(measured):
    weights = measured()
    weights.write_bytes(b"trained again since")
    with pytest.raises(GateFailed, match=r"python -m training\.evaluate --weights"):
        check_gate(weights, LENIENT)


def test_a_reference_that_nobody_measured_is_rejected(measured, tmp_path):
    reference = measured("reference")
    shutil.move(reference.parent / "evaluation.json", tmp_path)
    with pytest.raises(GateFailed, match=r"gate\.reference is .*gate\.reference=null"):
        check_gate(measured(), dataclasses.replace(LENIENT, reference=str(reference)))


@pytest.mark.parametrize("key", ["min_accuracy", "min_class_recall", "max_calibration_error", "max_accuracy_drop"])
def test_a_threshold_in_percent_is_rejected_by_name(key):
    with pytest.raises(ParameterError, match=rf"gate\.{key} is 80.*a share between 0 and 1"):
        load_params(GateParams, [f"gate.{key}=80"], REPOSITORY / "params.yaml")
