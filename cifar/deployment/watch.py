"""Watches a version during its first seconds as the default, beside the clients that it now answers."""

import re
import time
from dataclasses import dataclass

import numpy as np
import requests

from cifar.archives.reference_outputs import Certificate
from cifar.client.connection import Connection
from cifar.client.inference import InferenceClient
from cifar.client.management import ManagementClient
from cifar.client.tokens import Tokens
from cifar.common.errors import CifarError, DeploymentFailed
from cifar.deployment.parity import compare

_PAUSE_S = 0.1
_FAILED_PROBES = 3  # under overload the queue is full now and then, whichever version is the default
# Predictions answered with 5xx, among all since the switch.
_MAX_FAILED_SHARE = 0.01
_MIN_FAILED = 5
# Until what workers have counted is at /metrics: they hand it over once a second (handler/telemetry.py).
_COUNTED_AFTER_S = 1.5


# In the order of Counts.
_COUNTERS = (
    "ts_inference_requests_total",
    "cifar_batch_size_sum",
    "cifar_failed_requests_total",
    "Requests5XX",
)


@dataclass(frozen=True)
class Counts:
    """What the server has counted since it was started, of everybody's requests.

    Attributes:
        requests: for predictions.
        answered: those that workers have answered, with whatever status.
        failed: those that workers have answered with 5xx.
        all_5xx: everything that was answered with 5xx: broken HTTP too, which concerns no version.
    """

    requests: float
    answered: float
    failed: float
    all_5xx: float


def watch(
    metrics_url: str | None,
    management: ManagementClient,
    inference: InferenceClient,
    version: str,
    certificate: Certificate,
    seconds: float,
) -> int:
    """Ask the default version about known pictures, and look at its workers and at what others are answered.

    Args:
        metrics_url: where the server counts its answers; None: they are not looked at.
        management: of the server.
        inference: of the server.
        version: which is the default now.
        certificate: of that version.
        seconds: how long; at least one picture is asked about.

    Returns:
        How many pictures it was asked about.

    Raises:
        DeploymentFailed: a wrong answer, a worker that died, or too many failures.
    """
    before = read_counts(metrics_url)
    workers = {worker.id: worker.pid for worker in management.describe(version).workers}
    deadline = time.monotonic() + seconds
    asked = failed = 0
    while not asked or time.monotonic() < deadline:
        row = asked % len(certificate.images)
        asked += 1
        try:
            answer = inference.predict(certificate.images[row], top_k=len(certificate.class_names))
        except CifarError as error:
            failed += 1
            if failed >= _FAILED_PROBES:
                raise DeploymentFailed(
                    f"Version {version} failed on {failed} of {asked} known pictures: {error}"
                ) from error
            time.sleep(_PAUSE_S)
            continue
        difference = compare(answer, certificate, np.array([row]))
        if answer.model_version != version or difference is not None:
            raise DeploymentFailed(
                f"Version {version} is the default, and {answer.model_version} answered"
                if answer.model_version != version
                else f"Version {version} answers otherwise than when it was exported: {difference}"
            )
        now = {worker.id: worker.pid for worker in management.describe(version).workers if worker.ready}
        if now != workers:
            raise DeploymentFailed(
                f"Version {version} lost a worker: it had the processes {workers}, now {now} are READY"
            )
        time.sleep(_PAUSE_S)
    if before is not None:
        ended = read_counts(metrics_url)
        time.sleep(_COUNTED_AFTER_S)
        _check_others(version, before, ended, read_counts(metrics_url))
    return asked


def read_counts(metrics_url: str | None) -> Counts | None:
    """Read the server's counters; None where it does not expose them."""
    if metrics_url is None:
        return None
    try:
        with Connection(metrics_url, Tokens("inference", None)) as metrics:
            text = metrics.send("GET", "/metrics").text
    except (CifarError, requests.RequestException):
        return None
    counts = dict.fromkeys(_COUNTERS, 0.0)
    found = re.findall(rf"^({'|'.join(_COUNTERS)})\{{[^}}]*\}} ([\d.eE+]+)", text, re.MULTILINE)
    for name, value in found:
        counts[name] += float(value)
    return Counts(*counts.values()) if found else None


def _check_others(version: str, before: Counts, ended: Counts | None, counted: Counts | None) -> None:
    """Look for predictions that failed, of which TorchServe exposes no counter.

    They are those that workers count, and those that no worker has answered. What was answered is read later than what
    was asked, so that an answer which is not counted yet is not taken for a failure; a few failures hide behind the
    answers of that time, and the known pictures find those.
    """
    if ended is None or counted is None:
        return
    requests_made = ended.requests - before.requests
    unserved = max(0, requests_made - (counted.answered - before.answered)) + counted.failed - before.failed
    failed = min(unserved, counted.all_5xx - before.all_5xx)
    if failed >= _MIN_FAILED and failed > _MAX_FAILED_SHARE * requests_made:
        raise DeploymentFailed(
            f"Since version {version} is the default, {failed:.0f} of {requests_made:.0f} predictions were answered "
            f"with 5xx; at most {_MAX_FAILED_SHARE:.0%} were expected"
        )
