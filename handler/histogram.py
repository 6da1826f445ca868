"""Counts values in cumulative buckets, as Prometheus's histograms have them; TorchServe lets nobody choose its own."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from buckets import bucket_label


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
        """Count values, each so many times; a value that is the end of a bucket belongs to it."""
        flat = np.atleast_1d(np.asarray(values, dtype=np.float64))
        places = np.searchsorted(self._bounds, flat, side="left")
        self._counts += np.bincount(places, minlength=len(self._labels)) * times
        self._sum += float(flat.sum()) * times

    def drain(self) -> tuple[Iterator[tuple[str, int]], float, int]:
        """Return what was observed, and begin anew.

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
