"""Whether a confidence means what it says: the temperature that makes it so, and how far off it is.

Source of both: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
