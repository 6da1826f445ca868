"""Counts what happens and hands the counts to TorchServe, which adds up those of all workers at /metrics.

A count is a line of text that the front end parses. Counts are therefore gathered and handed over once a second, by a
timer: under load that is fewer lines than one a batch. A worker that is killed takes at most its last second along.
"""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histogram import BOUNDS, Histogram
from input_statistics import describe_picture
from pixels import Images

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 1.0
HEARTBEAT_S = 5.0  # alerts/recording.yaml reckons with it

_BASELINE_BUCKET = "cifar_baseline_bucket_ratio"
_BASELINE_MEAN = "cifar_baseline_mean"
_BASELINE_PREDICTION = "cifar_baseline_prediction_ratio"
_BUILD = "cifar_build_info"
_FAILED_REQUESTS = "cifar_failed_requests_total"
_HEARTBEATS = "cifar_worker_heartbeats_total"
_STARTS = "cifar_worker_starts_total"
_PREDICTIONS = "cifar_predictions_total"
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
        self._histograms: dict[_Key, Histogram] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def set_build_info(self, digest: str, commit: str) -> None:
        """Say which weights this version has, and by which commit they were trained."""
        self._set({(_BUILD, (_label(digest or "unknown"), _label(commit or "unknown"))): 1})

    def set_baseline(self, baseline: Mapping[str, Any] | None) -> None:
        """Tell what predictions and inputs looked like when the version was evaluated.

        Args:
            baseline: as training/baseline.py measures it; None: no baseline is exposed.
        """
        gauges: dict[_Key, float] = {}
        try:
            for label, share in (baseline or {}).get("predictions", {}).items():
                gauges[_BASELINE_PREDICTION, (_label(label),)] = float(share)
            for statistic, measured in (baseline or {}).get("statistics", {}).items():
                gauges[_BASELINE_MEAN, (_label(statistic),)] = float(measured["mean"])
                for bound, share in measured["cumulative"].items():
                    gauges[_BASELINE_BUCKET, (_label(statistic), _label(bound))] = float(share)
        except (AttributeError, KeyError, TypeError, ValueError):  # of an archive that others have made
            logger.exception("The baseline in the model's metadata.json is not as training/baseline.py measures it")
            return
        self._set(gauges)

    def count_start(self) -> None:
        """Count that a worker was started: at once, as it may not live for long."""
        # Nothing has failed yet: a counter that appears with its first failure has no rate at that.
        self._hand_over({(_STARTS, ()): 1, (_FAILED_REQUESTS, ()): 0})

    def start_heartbeat(self) -> None:
        """Count that a worker is ready, now and every few seconds from now on, whether anybody asks it or not.

        TorchServe exposes no metric of how many workers are READY.
        """
        threading.Thread(target=self._heartbeat_loop, name="heartbeat", daemon=True).start()

    def count_batch(self, requests: int) -> None:
        """Count one batch of `requests` requests."""
        self._observe("cifar_batch_size", requests)

    def count_stages(self, seconds: Mapping[str, float], requests: int) -> None:
        """Count how long a batch was in each stage: for each of its requests, as each of them has waited so long."""
        for stage, duration in seconds.items():
            self._observe("cifar_stage_seconds", duration, (stage,), requests)

    def count_predictions(self, probabilities: NDArray[np.float32], labels: Sequence[str]) -> None:
        """Count what was predicted, and how confidently.

        Args:
            probabilities: (N, number of classes), of the images of a batch.
            labels: the class names.
        """
        found = np.bincount(probabilities.argmax(1), minlength=len(labels))
        counted = zip(labels, found.tolist(), strict=True)
        self._count({(_PREDICTIONS, (_label(label),)): images for label, images in counted if images})
        self._observe("cifar_confidence", probabilities.max(1))

    def count_inputs(self, requests: Sequence[Images]) -> None:
        """Count how many images requests have, and what one of them looks like.

        One image a batch: without load that is nearly every one, and under load more than enough to see a drift.

        Args:
            requests: (N, 32, 32, 3) each; at least one.
        """
        self._observe("cifar_images_per_request", [len(images) for images in requests])
        for name, value in describe_picture(requests[0][0]).items():
            self._observe(f"cifar_input_{name}", value)

    def count_rejection(self, code: str) -> None:
        """Count one rejected request by its reason, a key of bad_input.STATUS_OF_CODE."""
        self._count({(_REJECTED_INPUTS, (code,)): 1})

    def count_failures(self, requests: int) -> None:
        """Count requests that were answered with 5xx."""
        self._count({(_FAILED_REQUESTS, ()): requests})

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        with self._lock:
            counts: dict[_Key, float] = dict(self._counts)
            self._counts.clear()
            for (name, labels), histogram in self._histograms.items():
                buckets, total, count = histogram.drain()
                if count:
                    counts |= {(f"{name}_bucket", (*labels, bound)): filled for bound, filled in buckets}
                    counts |= {(f"{name}_sum", labels): total, (f"{name}_count", labels): count}
            self._timer = None
        self._hand_over(counts)

    def _heartbeat_loop(self) -> None:
        while self._metrics is not None:
            self._count({(_HEARTBEATS, ()): 1})
            time.sleep(HEARTBEAT_S)

    def _set(self, gauges: Mapping[_Key, float]) -> None:
        if self._metrics is None:
            return
        from ts.metrics.metric_type_enum import MetricTypes  # not at the top: tests of the handler need no TorchServe

        try:
            for (name, labels), value in gauges.items():
                self._metrics.get_metric(name, MetricTypes.GAUGE).add_or_update(
                    value, [self._version, *labels, *self._common]
                )
        except Exception:
            self._give_up()

    def _hand_over(self, values: Mapping[_Key, float]) -> None:
        if self._metrics is None:
            return
        try:
            for (name, labels), value in values.items():
                # Labels are told apart by their place alone.
                self._metrics.get_metric(name).add_or_update(value, [self._version, *labels, *self._common])
        except Exception:  # in a server whose metrics_config does not declare them, for example
            self._give_up()

    def _give_up(self) -> None:
        """Log the exception being handled; predictions go on."""
        self._metrics = None
        logger.exception("Counting ends: handler/metrics.yaml must be the server's metrics_config")

    def _observe(self, name: str, values: ArrayLike, labels: tuple[str, ...] = (), times: int = 1) -> None:
        if self._metrics is None:
            return
        with self._lock:
            histogram = self._histograms.get((name, labels))
            if histogram is None:
                histogram = self._histograms[name, labels] = Histogram(BOUNDS[name])
            histogram.observe(values, times)
            self._start_timer()

    def _count(self, counts: dict[_Key, int]) -> None:
        if self._metrics is None:
            return
        with self._lock:
            self._counts.update(counts)
            self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_INTERVAL_S, self.flush)
            self._timer.daemon = True
            self._timer.start()


def _label(text: str) -> str:
    return _SEPARATORS.sub("_", text)
