"""Watches a version during its first seconds as the default, beside the clients that it now answers."""

import re
import time
from dataclasses import dataclass

import numpy as np
import requests

from client.connection import Connection
from client.errors import CifarError
from client.inference import InferenceClient
from client.management import ManagementClient
from client.tokens import Tokens
from deployment.certificate import Certificate
from deployment.errors import DeploymentFailed
from deployment.parity import compare

_PAUSE_S = 0.1
_FAILED_PROBES = 3  # under overload the queue is full now and then, whichever version is the default
# 5xx among all answers since the switch. TorchServe answers some broken forms with 500 by itself (ADR 6).
_MAX_FAILED_SHARE = 0.01
_MIN_FAILED = 5


@dataclass(frozen=True)
class Answered:
    """What the server has answered since it was started, to everybody."""

    all: float
    failed: float  # with 5xx


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
    before = read_answered(metrics_url)
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
    _check_others(version, before, read_answered(metrics_url))
    return asked


def read_answered(metrics_url: str | None) -> Answered | None:
    """Read TorchServe's counters of answers; None where it does not tell them."""
    if metrics_url is None:
        return None
    try:
        with Connection(metrics_url, Tokens("inference", None)) as metrics:
            text = metrics.send("GET", "/metrics").text
    except (CifarError, requests.RequestException):
        return None
    counts = dict.fromkeys(("2XX", "4XX", "5XX"), 0.0)
    found = re.findall(r"^Requests(2XX|4XX|5XX)\{[^}]*\} ([\d.eE+]+)", text, re.MULTILINE)
    for kind, value in found:
        counts[kind] += float(value)
    return Answered(sum(counts.values()), counts["5XX"]) if found else None


def _check_others(version: str, before: Answered | None, after: Answered | None) -> None:
    if before is None or after is None:
        return
    failed, answered = after.failed - before.failed, after.all - before.all
    if failed >= _MIN_FAILED and failed > _MAX_FAILED_SHARE * answered:
        raise DeploymentFailed(
            f"Since version {version} is the default, {failed:.0f} of {answered:.0f} requests were answered with 5xx; "
            f"at most {_MAX_FAILED_SHARE:.0%} were expected"
        )
