"""Calibration: the temperature that makes confidences match accuracies, and how far off they are.

`python -m training.calibrate --weights their/best_cnn_model.pth model.flip_tta=true` fits the temperature of weights
that are there already: an external checkpoint, or one that is to predict in another way.

Source of both: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from cifar.common.console import console, run_stage
from cifar.common.files import write_json
from cifar.common.training_record import RECORD_NAME, read_record
from training.data import DATA_FILE, load_dataset
from training.errors import WeightsError
from training.model import ModelParams, predict_logits
from training.params import check_sections
from training.weights import WEIGHTS_FILE, find_params, load_classifier, plain_values

BINS = 15  # as in the paper

_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature T for which softmax(logits / T) has the smallest negative log-likelihood.

    Args:
        logits: (N, 10), of the validation images: those that the network was trained on would give one far too small.
        labels: (N,), class indices.

    Returns:
        T in 0.05-20, to eight digits; above 1: the network was too sure. A network without a mistake has no best T: the
        smaller, the better, down to 0.05 or to where float64 sees no difference any more.

    Raises:
        ValueError: no images, or a logit that is not finite.
    """
    logits, labels = logits.detach().cpu().to(torch.float64), labels.detach().cpu()
    if not len(logits) or not torch.isfinite(logits).all():
        raise ValueError(f"a temperature needs finite logits of at least one image, got {tuple(logits.shape)}")
    margins = logits - logits.gather(1, labels[:, None])  # (N, 10), over the true class

    def slope(temperature: float) -> float:
        """The negative log-likelihood's derivative by 1 / T."""
        return (torch.softmax(margins / temperature, dim=1) * margins).sum(1).mean().item()

    # The negative log-likelihood is convex in 1 / T: its slope changes sign once, and bisection finds where, whereas a
    # step of Newton's or L-BFGS may end where everything is flat. The first middle is 1.
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    while high - low > 1e-9:
        middle = (low + high) / 2
        at_middle = slope(math.exp(middle))
        if at_middle == 0:
            return math.exp(middle)
        low, high = (middle, high) if at_middle > 0 else (low, middle)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence lies in one of equally wide intervals.

    Attributes:
        confidence: their mean probability of the predicted class, 0-1; None without images.
        accuracy: the share of them that is right, 0-1; None without images.
        images: how many.
    """

    confidence: float | None
    accuracy: float | None
    images: int


def reliability(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = BINS
) -> list[ReliabilityBin]:
    """Sort images by confidence into `bins` equally wide intervals, each with its upper end.

    Args:
        probabilities: (N, 10).
        labels: (N,), class indices.
        bins: how many intervals.
    """
    confidences = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    members = np.digitize(confidences, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return [_summarise(confidences[members == index], right[members == index]) for index in range(bins)]


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = BINS
) -> float:
    """Return the mean distance of confidence and accuracy over the intervals, weighted by their images; 0-1."""
    gaps = [
        part.images * abs(part.confidence - part.accuracy)
        for part in reliability(probabilities, labels, bins)
        if part.confidence is not None and part.accuracy is not None
    ]
    return sum(gaps) / len(labels)


def _summarise(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> ReliabilityBin:
    if not len(confidences):
        return ReliabilityBin(None, None, 0)
    return ReliabilityBin(float(confidences.mean()), float(right.mean()), len(confidences))


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="model.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="whose record is written, training.json beside them")] = WEIGHTS_FILE,
) -> None:
    """Fit the temperature on the validation images, and keep it and the given parameters beside the weights.

    The network must not have been trained on these images: it would be sure of them, and be taken for too modest.
    """
    given = overrides or []
    check_sections(given, ModelParams)
    record, dataset = read_record(weights) or {}, load_dataset(data)
    if record.get("data_digest", dataset.digest) != dataset.digest:
        raise WeightsError(
            f"{weights} were trained on other data ({record['data_digest'][:12]}…) than {data} holds "
            f"({dataset.digest[:12]}…); its validation images may be among those that they were trained on"
        )
    logits = torch.from_numpy(predict_logits(load_classifier(weights, given), dataset.validation_images))
    labels = torch.from_numpy(dataset.validation_labels)
    fitted = {
        "model": plain_values(find_params(weights, given)),
        "temperature": fit_temperature(logits, labels),
        "validation_loss": torch.nn.functional.cross_entropy(logits, labels).item(),
        "validation_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }
    write_json(record | fitted, weights.parent / RECORD_NAME)
    console.print(
        f"{weights.parent / RECORD_NAME}: temperature {fitted['temperature']:.3f}, validation accuracy "
        f"{fitted['validation_accuracy']:.2%}. Metrics of the test images must be measured again: "
        f"python -m training.evaluate --weights {weights}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    run_stage(main)
