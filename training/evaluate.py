"""Evaluation on the test images, which no choice was made on. The stage `evaluate`."""

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.table import Table

from training.command import console, run_stage
from training.data import DATA_FILE, load_dataset
from training.json_file import read_json, write_json
from training.labels import class_names
from training.model import EVALUATION_BATCH, Classifier, ModelParams
from training.params import check_sections
from training.weights import WEIGHTS_FILE, load_classifier

EVALUATION_NAME = "evaluation.json"  # beside the weights


@dataclass(frozen=True)
class Evaluation:
    """How good the weights are on the test images.

    Attributes:
        accuracy: share of images whose most probable class is the right one, 0-1.
        accuracy_low, accuracy_high: its 95 % interval (Wilson 1927): what another test set of this size could show.
        loss: mean cross-entropy, nats.
        class_accuracy: the same share for the images of each class.
        confusion: images by true class (row) and predicted class (column).
        images: in the test set.
        data_digest: of the data set.
        weights_digest: SHA-256 of the weights file.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    class_accuracy: dict[str, float]
    confusion: list[list[int]]
    images: int
    data_digest: str
    weights_digest: str


def evaluate(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], data_digest: str, weights_digest: str
) -> Evaluation:
    """Compute the figures from probabilities (N, 10) and true class indices (N,)."""
    names = class_names()
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    of_true_class = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    right, count = int(confusion.trace()), len(labels)
    low, high = wilson_interval(right, count)
    share = confusion.diagonal() / np.maximum(confusion.sum(axis=1), 1)
    return Evaluation(
        accuracy=right / count,
        accuracy_low=low,
        accuracy_high=high,
        loss=float(-np.log(np.maximum(of_true_class, 1e-12)).mean()),
        class_accuracy=dict(zip(names, share.tolist(), strict=True)),
        confusion=confusion.tolist(),
        images=count,
        data_digest=data_digest,
        weights_digest=weights_digest,
    )


@torch.inference_mode()
def predict_probabilities(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run pictures (N, 32, 32, 3) through the eager network, to probabilities (N, 10)."""
    batches = torch.from_numpy(images).split(EVALUATION_BATCH)
    probabilities: NDArray[np.float32] = torch.cat([classifier(batch) for batch in batches]).numpy()
    return probabilities


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share: Wilson, Probable inference, JASA 22 (1927)."""
    z = 1.96
    share = right / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)  # rounding may step over the ends


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_evaluation(weights: Path) -> dict[str, Any] | None:
    """Return the figures beside a weights file; None where there are none, or where they are of other weights."""
    figures = read_json(weights.parent / EVALUATION_NAME)
    return figures if figures and figures.get("weights_digest") == digest_file(weights) else None


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="model.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="the weights to measure; the figures go beside them")] = WEIGHTS_FILE,
) -> None:
    """Measure weights on the test images."""
    check_sections(overrides or [], ModelParams)
    classifier = load_classifier(weights, overrides or [])
    dataset = load_dataset(data)
    probabilities = predict_probabilities(classifier, dataset.test_images)
    figures = evaluate(probabilities, dataset.test_labels, dataset.digest, digest_file(weights))
    write_json(asdict(figures), weights.parent / EVALUATION_NAME)
    console.print(_table(figures))


def _table(figures: Evaluation) -> Table:
    table = Table()
    table.add_column("class")
    table.add_column("right", justify="right")
    for name, accuracy in figures.class_accuracy.items():
        table.add_row(name, f"{accuracy:.1%}")
    table.add_section()
    table.add_row("all", f"{figures.accuracy:.2%}")
    table.add_row("95 % interval", f"{figures.accuracy_low:.2%} to {figures.accuracy_high:.2%}")
    return table


if __name__ == "__main__":
    run_stage(main)
