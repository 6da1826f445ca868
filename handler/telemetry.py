"""Counts what happens and hands the counts to TorchServe, which adds up those of all workers at /metrics.

A count is a line of text that the front end parses. Counts are therefore gathered and handed over once a second, by a
timer: under load that is fewer lines than one a batch. A worker that is killed takes at most its last second along.
"""

import logging
import re
import threading
from collections import Counter
from typing import Any

logger = logging.getLogger(__name__)

HAND_OVER_AFTER_S = 1.0
BATCH_SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64)

_BATCH_SIZE = "cifar_batch_size"
_REJECTED_INPUTS = "cifar_rejected_inputs_total"
# What separates the parts of a line of TorchServe's.
_SEPARATORS = re.compile(r"[:,|#\s]")

_Key = tuple[str, tuple[str, ...]]


class Telemetry:
    """The counters of one worker. They are declared in metrics.yaml, with their labels in the same order as here.

    Args:
        metrics: TorchServe's ts.metrics.metric_cache_abstract.MetricCacheAbstract; None counts nothing.
        model_name: the last label but one, as in TorchServe's own metrics.
        version: the model's, the first label.
    """

    def __init__(self, metrics: Any, model_name: str, version: str) -> None:
        self._metrics = metrics
        self._version = _label(version)
        self._common = (_label(model_name), "Model")
        self._counts: Counter[_Key] = Counter()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def count_batch(self, requests: int) -> None:
        """Count one batch of so many requests, in cumulative buckets as Prometheus has them."""
        bounds = [str(bound) for bound in BATCH_SIZE_BOUNDS if requests <= bound]
        counts: dict[_Key, int] = {(f"{_BATCH_SIZE}_bucket", (bound,)): 1 for bound in (*bounds, "+Inf")}
        self._add({**counts, (f"{_BATCH_SIZE}_sum", ()): requests, (f"{_BATCH_SIZE}_count", ()): 1})

    def count_rejection(self, code: str) -> None:
        """Count one refused request by its reason, a key of bad_input.STATUS_OF_CODE."""
        self._add({(_REJECTED_INPUTS, (code,)): 1})

    def hand_over(self) -> None:
        """Hand over what was counted since the last time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            self._timer = None
        try:
            for (name, labels), value in counts.items():
                # Labels are told apart by their place alone.
                values = [self._version, *labels, *self._common]
                self._metrics.get_metric(name).add_or_update(value, values)
        except Exception:  # in a server whose metrics_config does not declare them, for example
            self._metrics = None
            logger.exception("Counting ends: handler/metrics.yaml must be the server's metrics_config")

    def _add(self, counts: dict[_Key, int]) -> None:
        if self._metrics is None:
            return
        with self._lock:
            self._counts.update(counts)
            if self._timer is None:
                self._timer = threading.Timer(HAND_OVER_AFTER_S, self.hand_over)
                self._timer.daemon = True
                self._timer.start()


def _label(text: str) -> str:
    return _SEPARATORS.sub("_", text)
