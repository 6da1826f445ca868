"""The gate before the export: a model that is worse than it must be is not packed, let alone served."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cifar.common.training_record import EVALUATION_NAME
from training.errors import GateFailed, ParameterError
from training.evaluate import read_evaluation


@dataclass(frozen=True)
class GateParams:
    """The section `gate` of params.yaml, which explains each."""

    SECTION: ClassVar[str] = "gate"

    min_accuracy: float
    min_class_recall: float
    min_corrupted_accuracy: float
    max_calibration_error: float
    reference: str | None
    max_accuracy_drop: float

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if key != "reference" and not 0 <= value <= 1:
                raise ParameterError(f"gate.{key} is {value}; expected a share between 0 and 1")


def check_gate(weights: Path, params: GateParams) -> None:
    """Compare the metrics of weights, measured by `evaluate`, with the thresholds and with the reference.

    Args:
        weights: the file; `evaluation.json` stands beside it.
        params: the thresholds.

    Raises:
        GateFailed: not measured, or too bad; the message says by how much for each metric that is.
    """
    metrics = read_evaluation(weights)
    if metrics is None:
        raise GateFailed(
            f"{weights} has no metrics of its own in {weights.parent / EVALUATION_NAME}, so its quality is "
            f"unknown; measure it: python -m training.evaluate --weights {weights}"
        )
    failures = _below_thresholds(metrics, params) + _below_reference(metrics, params)
    if failures:
        raise GateFailed(f"{weights} is not good enough: {'; '.join(failures)}")


def _below_thresholds(metrics: dict[str, Any], params: GateParams) -> list[str]:
    recalls = {name: _number(of_class["recall"]) for name, of_class in metrics["classes"].items()}
    worst = min(recalls, key=lambda name: recalls[name] if recalls[name] >= 0 else -1.0)
    checks = [
        ("accuracy", metrics["accuracy"], params.min_accuracy, "min_accuracy"),
        (f"recall of {worst}, the worst class,", recalls[worst], params.min_class_recall, "min_class_recall"),
        (
            "accuracy on corrupted images",
            metrics["corrupted_accuracy"],
            params.min_corrupted_accuracy,
            "min_corrupted_accuracy",
        ),
    ]
    failures = [
        f"{name} is {_number(value):.2%}, {least - _number(value):.2%} below gate.{key} ({least:.2%})"
        for name, value, least, key in checks
        if not _number(value) >= least
    ]
    error, most = _number(metrics["calibration_error"]), params.max_calibration_error
    if not error <= most:
        failures.append(
            f"calibration error is {error:.2%}, {error - most:.2%} above gate.max_calibration_error ({most:.2%})"
        )
    return failures


def _number(metric: float | None) -> float:
    """JSON has no NaN: it stands there as null. It compares as false, so it passes nothing."""
    return math.nan if metric is None else metric


def _below_reference(metrics: dict[str, Any], params: GateParams) -> list[str]:
    if params.reference is None:
        return []
    shipped = read_evaluation(Path(params.reference))
    if shipped is None:
        raise GateFailed(
            f"gate.reference is {params.reference}, which has no metrics of its own in an {EVALUATION_NAME} beside it; "
            "measure it, or set gate.reference=null"
        )
    drop = shipped["accuracy"] - metrics["accuracy"]
    if drop <= params.max_accuracy_drop:
        return []
    elsewhere = "" if shipped["data_digest"] == metrics["data_digest"] else ", which was measured on other images"
    return [
        f"accuracy is {drop:.2%} below the {shipped['accuracy']:.2%} of {params.reference}{elsewhere}; "
        f"gate.max_accuracy_drop allows {params.max_accuracy_drop:.2%}"
    ]
