"""The scores of alerts/model.yaml for made traffic: the rules' arithmetic on arrays, without Prometheus.

Traffic is a sequence of images drawn from a pool, one a request, each measured. What a worker counts of an image is
taken once; a window's counts are then differences of sums.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from histogram import BOUNDS
from input_statistics import STATISTICS, describe_picture
from training.model import Classifier, predict_probabilities

Images = NDArray[np.uint8]
Scores = dict[str, NDArray[np.float64]]  # by alert, one a window


@dataclass(frozen=True)
class Pool:
    """What images would be counted as.

    Attributes:
        labels: (N, classes), 1 at the predicted label.
        confidences: (N,), 0-1.
        filled: by statistic, (N, bounds): 1 where the image is in the cumulative bucket.
    """

    labels: NDArray[np.int32]
    confidences: NDArray[np.float64]
    filled: dict[str, NDArray[np.int32]]

    def join(self, other: "Pool") -> "Pool":
        """Return both, the other one's images behind."""
        return Pool(
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.confidences, other.confidences]),
            {name: np.concatenate([self.filled[name], other.filled[name]]) for name in STATISTICS},
        )


def count_pictures(classifier: Classifier, images: Images) -> Pool:
    """Count images (N, 32, 32, 3) as a worker does."""
    probabilities = predict_probabilities(classifier, images)
    described = [describe_picture(image) for image in images]
    return Pool(
        np.eye(probabilities.shape[1], dtype=np.int32)[probabilities.argmax(1)],
        probabilities.max(1).astype(np.float64),
        {
            name: (
                np.array([statistics[name] for statistics in described])[:, None] <= BOUNDS[f"cifar_input_{name}"]
            ).astype(np.int32)
            for name in STATISTICS
        },
    )


def score_windows(pool: Pool, stream: NDArray[np.int64], ends: NDArray[np.int64], length: int, baseline: Any) -> Scores:
    """Score windows of a stream.

    Args:
        pool: the images.
        stream: (T,), which image of the pool comes when.
        ends: (W,), behind which place of the stream each window ends; at least `length`.
        length: images in a window.
        baseline: what training.baseline measured.
    """
    shares = np.array(list(baseline["predictions"].values()))
    expected = baseline["statistics"]

    def sums(values: NDArray[Any]) -> NDArray[np.float64]:
        total = np.concatenate([np.zeros((1, *values.shape[1:])), values[stream].cumsum(0, dtype=np.float64)])
        means: NDArray[np.float64] = (total[ends] - total[ends - length]) / length
        return means

    distances = [
        np.abs(sums(pool.filled[name]) - list(expected[name]["cumulative"].values())).max(1) for name in STATISTICS
    ]
    return {
        "CifarInputDrift": np.max(distances, axis=0),
        "CifarPredictionMixShifted": np.abs(sums(pool.labels) - shares).sum(1) / 2,
        "CifarConfidenceFallen": expected["confidence"]["mean"] - sums(pool.confidences),
    }


def read_thresholds(file: Path) -> dict[str, float]:
    """Read alerts/thresholds.yaml: recorded name to value."""
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return {rule["record"]: float(rule["expr"]) for group in groups for rule in group["rules"]}
