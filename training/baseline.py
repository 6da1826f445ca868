"""What a version's predictions and inputs look like on the test images: what monitoring compares traffic with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.common.handler_modules import BOUNDS, STATISTICS, bucket_label, describe_picture


def measure_baseline(
    images: NDArray[np.uint8], probabilities: NDArray[np.float32], labels: tuple[str, ...]
) -> dict[str, Any]:
    """Measure the baseline, in the buckets in which a worker counts.

    Args:
        images: (N, 32, 32, 3), those that the classifier was evaluated on.
        probabilities: (N, number of classes), as they are served.
        labels: the class names.

    Returns:
        `images`: their number. `predictions`: by label, the share of images it was predicted for, 0-1. `statistics`: of
        the confidence and of each statistic in handler/input_statistics.py its `mean`, and `cumulative`: by the end of
        a bucket, the share of images that are not above it.
    """
    described = [describe_picture(image) for image in images]
    values = {f"cifar_input_{name}": np.array([statistics[name] for statistics in described]) for name in STATISTICS}
    values = {"cifar_confidence": probabilities.max(1)} | values
    shares = np.bincount(probabilities.argmax(1), minlength=len(labels)) / len(images)
    return {
        "images": len(images),
        "predictions": dict(zip(labels, shares.tolist(), strict=True)),
        "statistics": {
            metric.removeprefix("cifar_").removeprefix("input_"): {
                "mean": float(measured.mean(dtype=np.float64)),
                "cumulative": {bucket_label(bound): float((measured <= bound).mean()) for bound in BOUNDS[metric]},
            }
            for metric, measured in values.items()
        },
    }
