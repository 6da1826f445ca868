"""Histograms in cumulative buckets, as Prometheus has them, with bounds of our own: TorchServe's are fixed."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

# E12, the preferred numbers of IEC 60063: each is at most 1.25 times the one before, so that a quantile between 1 and
# 220 milliseconds is known within 25 %.
_E12 = (1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2)
_MILLISECONDS = (
    0.1,
    0.2,
    0.5,
    *_E12,
    *(10 * value for value in _E12),
    100,
    120,
    150,
    180,
    220,
    500,
    1000,
    2500,
    5000,
    10000,
)
_TWENTIETHS = tuple(step / 20 for step in range(1, 20))

BOUNDS: dict[str, tuple[float, ...]] = {
    "cifar_batch_size": (1, 2, 4, 8, 16, 32, 64),
    "cifar_images_per_request": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "cifar_stage_seconds": tuple(round(value / 1000, 6) for value in _MILLISECONDS),
    "cifar_confidence": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999),
    "cifar_input_brightness": _TWENTIETHS,
    "cifar_input_contrast": tuple(step / 40 for step in range(1, 20)),
    "cifar_input_colour_balance": tuple(step / 40 for step in range(12, 29)),
    "cifar_input_sharpness": (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3),
}


class Histogram:
    """What was observed since it was last taken away.

    Args:
        bounds: the upper ends of the buckets, ascending; one without an end comes behind them.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._labels = [*map(bucket_label, bounds), "+Inf"]
        self._clear()

    def observe(self, values: ArrayLike, times: int = 1) -> None:
        """Count values, each `times` times; a value that is the end of a bucket belongs to it."""
        flat = np.atleast_1d(np.asarray(values, dtype=np.float64))
        places = np.searchsorted(self._bounds, flat, side="left")
        self._counts += np.bincount(places, minlength=len(self._labels)) * times
        self._sum += float(flat.sum()) * times

    def drain(self) -> tuple[Iterator[tuple[str, int]], float, int]:
        """Return what was observed, and start again from zero.

        Returns:
            The cumulative count of each bucket that is not 0, by the label `le`; the sum; the count.
        """
        cumulative, total = self._counts.cumsum(), self._sum
        self._clear()
        filled = [(label, int(count)) for label, count in zip(self._labels, cumulative, strict=True) if count]
        return iter(filled), total, int(cumulative[-1])

    def _clear(self) -> None:
        self._counts = np.zeros(len(self._labels), dtype=np.int64)
        self._sum = 0.0


def bucket_label(bound: float) -> str:
    """Return the value of the label `le` for a bucket that ends at `bound`."""
    return f"{bound:g}"
