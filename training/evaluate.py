"""Evaluation on the test images, which no choice was made on. The stage `evaluate`."""

import math
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cifar.common.console import console, run_stage
from cifar.common.files import digest_file, read_json, write_json
from cifar.common.project import class_names
from cifar.common.training_record import EVALUATION_NAME, read_record
from training.baseline import measure_baseline
from training.calibrate import ReliabilityBin, expected_calibration_error, reliability
from training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from training.data import DATA_FILE, load_dataset
from training.errors import TrainingError
from training.model import Classifier, ModelParams, predict_logits, softmax
from training.params import check_sections
from training.weights import WEIGHTS_FILE, load_classifier

BASELINE_NAME = "baseline.json"  # beside the weights that it is of
METRICS_NAME = "metrics.json"  # beside it: the few of its metrics that models are compared by, for `dvc metrics`
HEADLINE_METRICS = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "top2_accuracy",
    "loss",
    "calibration_error",
    "corrupted_accuracy",
)
PLOTS_NAME = "plots"  # the folder beside it

_CORRUPTION_SEED = 0  # fixed: two networks are to see the very same images


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is distinguished from the others.

    Attributes:
        precision: share of the images predicted to be of the class that are, 0-1; None when it is never predicted.
        recall: share of the class's images that are recognised, 0-1; None when there are none.
    """

    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Evaluation:
    """How good the weights are on the test images.

    Attributes:
        accuracy: share of images whose most probable class is the right one, 0-1.
        accuracy_low, accuracy_high: its 95 % interval (Wilson 1927): what another test set of this size could show.
        top2_accuracy: share of images whose class is among the two most probable ones, 0-1.
        loss: mean cross-entropy of the probabilities that are served, nats.
        calibration_error: mean distance of confidence and accuracy (training/calibrate.py), 0-1.
        calibration_error_before: the same at temperature 1.
        temperature: what the logits were divided by, fitted on the validation images; 1 where it was not.
        corrupted_accuracy: mean over all corruptions and severities, 0-1.
        classes: by name.
        confusion: images by true class (row) and predicted class (column).
        reliability: the images by confidence, with the temperature.
        corruptions: by name, the accuracy at severity 1, 2, … 5 (training/corruptions.py).
        images: in the test set.
        data_digest: of the data set.
        weights_digest: SHA-256 of the weights file.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top2_accuracy: float
    loss: float
    calibration_error: float
    calibration_error_before: float
    temperature: float
    corrupted_accuracy: float
    classes: dict[str, ClassMetrics]
    confusion: list[list[int]]
    reliability: list[ReliabilityBin]
    corruptions: dict[str, list[float]]
    images: int
    data_digest: str
    weights_digest: str


def evaluate(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    temperature: float,
    corruptions: dict[str, list[float]],
    data_digest: str,
    weights_digest: str,
) -> Evaluation:
    """Compute the metrics from logits (N, 10), true class indices (N,) and what `measure_corruptions` returned."""
    probabilities = softmax(logits, temperature)
    count, names = len(labels), class_names()
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    right = int(confusion.trace())
    low, high = wilson_interval(right, count)
    top2 = (-probabilities).argsort(axis=1, kind="stable")[:, :2]  # of equals the first, as argmax does
    return Evaluation(
        accuracy=right / count,
        accuracy_low=low,
        accuracy_high=high,
        top2_accuracy=float((top2 == labels[:, None]).any(axis=1).mean()),
        loss=_cross_entropy(logits, labels, temperature),
        calibration_error=expected_calibration_error(probabilities, labels),
        calibration_error_before=expected_calibration_error(softmax(logits), labels),
        temperature=temperature,
        corrupted_accuracy=float(np.mean(list(corruptions.values()))),
        classes=_class_metrics(confusion, names),
        confusion=confusion.tolist(),
        reliability=reliability(probabilities, labels),
        corruptions=corruptions,
        images=count,
        data_digest=data_digest,
        weights_digest=weights_digest,
    )


def measure_corruptions(
    classifier: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> dict[str, list[float]]:
    """Return the accuracy (0-1) on images (N, 32, 32, 3), by corruption, at severity 1, 2, … 5; shows a bar."""
    accuracies: dict[str, list[float]] = {name: [] for name in CORRUPTIONS}
    passes = list(product(CORRUPTIONS, SEVERITIES))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=len(passes))
        for name, severity in passes:
            progress.update(task, description=f"{name:16} {severity}")
            predicted = predict_logits(classifier, corrupt(images, name, severity, _CORRUPTION_SEED)).argmax(axis=1)
            accuracies[name].append(float((predicted == labels).mean()))
            progress.advance(task)
    return accuracies


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share: Wilson, Probable inference, JASA 22 (1927)."""
    z = 1.96
    share = right / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)  # rounding may step over the ends


def read_evaluation(weights: Path) -> dict[str, Any] | None:
    """Return the metrics beside a weights file; None where there are none, or where they are of other weights.

    Of another temperature are those that were measured before the weights were calibrated again.
    """
    metrics = read_json(weights.parent / EVALUATION_NAME)
    if not metrics or metrics.get("weights_digest") != digest_file(weights):
        return None
    temperature = (read_record(weights) or {}).get("temperature", 1.0)
    return metrics if metrics.get("temperature", temperature) == temperature else None


def write_baseline(baseline: dict[str, Any], weights: Path, weights_digest: str, temperature: float) -> None:
    """Write a baseline beside the weights that it is of."""
    write_json(
        baseline | {"weights_digest": weights_digest, "temperature": temperature}, weights.parent / BASELINE_NAME
    )


def read_baseline(weights: Path, weights_digest: str, temperature: float) -> dict[str, Any] | None:
    """Return the baseline beside a weights file; None where there is none, or where it is of others.

    Of others is one that was measured before the weights were calibrated again, too: confidences were others then.

    Raises:
        WeightsError: the file is no JSON object.
    """
    content = read_json(weights.parent / BASELINE_NAME)
    if not content or (content.pop("weights_digest", None), content.pop("temperature", None)) != (
        weights_digest,
        temperature,
    ):
        return None
    return content


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="model.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="the weights to measure; the metrics go beside them")] = WEIGHTS_FILE,
) -> None:
    """Measure weights on the test images, as they are and corrupted; write the metrics, and plots of them."""
    check_sections(overrides or [], ModelParams)
    try:
        # Here, and before the minutes of work: `export` reads evaluations where only the serving packages are.
        from training.evaluation_plots import write_plots
    except ModuleNotFoundError as error:
        raise TrainingError(f"{error.name} is not installed: pip install -e '.[training]'") from None
    classifier, weights_digest = load_classifier(weights, overrides or []), digest_file(weights)
    dataset = load_dataset(data)
    images, labels = dataset.test_images, dataset.test_labels
    logits = predict_logits(classifier, images)
    corruptions = measure_corruptions(classifier, images, labels)
    metrics = evaluate(logits, labels, classifier.temperature, corruptions, dataset.digest, weights_digest)
    evaluation, plots = asdict(metrics), weights.parent / PLOTS_NAME
    probabilities = softmax(logits, metrics.temperature)
    write_json(evaluation, weights.parent / EVALUATION_NAME)
    baseline = measure_baseline(images, probabilities, class_names())
    write_baseline(baseline, weights, weights_digest, classifier.temperature)
    write_json({name: evaluation[name] for name in HEADLINE_METRICS}, weights.parent / METRICS_NAME)
    write_plots(evaluation, images, labels, probabilities, plots)
    console.print(_summary(metrics))


def _cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> float:
    scaled = torch.from_numpy(logits).to(torch.float64) / temperature
    return torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)).item()


def _class_metrics(confusion: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, ClassMetrics]:
    metrics = {}
    for index, name in enumerate(names):
        right, predicted, present = confusion[index, index], confusion[:, index].sum(), confusion[index].sum()
        metrics[name] = ClassMetrics(_share(right, predicted), _share(right, present))
    return metrics


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def _summary(metrics: Evaluation) -> Group:
    classes = Table(title=f"{metrics.images:,} test images")
    for column in ("class", "precision", "recall"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, of_class in metrics.classes.items():
        classes.add_row(name, _percent(of_class.precision), _percent(of_class.recall))

    corruptions = Table(title="accuracy on corrupted images, by severity")
    for column in ("corruption", *map(str, SEVERITIES)):
        corruptions.add_column(column, justify="left" if column == "corruption" else "right")
    for name, accuracies in metrics.corruptions.items():
        corruptions.add_row(name, *map(_percent, accuracies))

    whole = Table(show_header=False)
    interval = f"{metrics.accuracy_low:.2%} to {metrics.accuracy_high:.2%}"
    for row in (
        ("accuracy", f"{metrics.accuracy:.2%} ({interval})"),
        ("among the two most probable", f"{metrics.top2_accuracy:.2%}"),
        ("accuracy, corrupted", f"{metrics.corrupted_accuracy:.2%}"),
        ("calibration error", f"{metrics.calibration_error:.2%}"),
        (f"before temperature {metrics.temperature:.3f}", f"{metrics.calibration_error_before:.2%}"),
        ("loss", f"{metrics.loss:.4f}"),
    ):
        whole.add_row(*row)
    return Group(classes, corruptions, whole)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


if __name__ == "__main__":
    run_stage(main)
