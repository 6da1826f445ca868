"""Verifies that a version answers as its network did at export: before the switch, and in its first seconds."""

import io
import re
import time
from dataclasses import dataclass

import numpy as np
import requests
from numpy.typing import NDArray
from PIL import Image

from cifar.archives.inspection import Candidate
from cifar.archives.reference_outputs import ReferenceOutputs, find_difference
from cifar.client.connection import Connection
from cifar.client.inference import Answer, InferenceClient
from cifar.client.management import ManagementClient
from cifar.client.tokens import Tokens
from cifar.common.errors import CifarError, DeploymentFailed

_DIGITS = 12  # as many as X-Model-Digest has
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


def check_served(management: ManagementClient, candidate: Candidate) -> None:
    """Ask a version's worker for the digest of its model.

    Raises:
        DeploymentFailed: it is of another model, or does not say.
    """
    recorded = candidate.metadata.get("weights_digest")
    # As the handler does (handler/cifar_handler.py): of the weights, else of the file.
    expected = recorded.rpartition(":")[2] if isinstance(recorded, str) and recorded else candidate.model_digest
    try:
        said = management.describe_handler(candidate.version).get("model_digest")
    except CifarError as error:
        raise DeploymentFailed(f"Version {candidate.version} does not say which model it serves: {error}") from error
    if said != expected[:_DIGITS]:
        raise DeploymentFailed(
            f"Version {candidate.version} serves another model than was checked: its X-Model-Digest is "
            f"{repr(said)[:80]}, expected {expected[:_DIGITS]!r}"
        )


def check_parity(inference: InferenceClient, version: str, reference: ReferenceOutputs) -> int:
    """Ask a version about all images, as raw bytes, and about the first as numbers and as PNG too.

    Returns:
        How many images were compared.

    Raises:
        DeploymentFailed: an answer differs, or there is none.
    """
    first = reference.images[:1]
    for body, images in (
        (reference.images, reference.images),
        (first.astype(np.float32), first),
        (_as_png(first[0]), first),
    ):
        try:
            answer = inference.predict(body, top_k=len(reference.class_names), version=version)
        except CifarError as error:
            raise DeploymentFailed(
                f"Version {version} does not answer an image whose answer is known: {error}"
            ) from error
        difference = compare(answer, reference, np.arange(len(images)))
        if answer.model_version != version:
            raise DeploymentFailed(f"Version {version} was asked, and {answer.model_version} answered")
        if difference is not None:
            raise DeploymentFailed(f"Version {version} answers otherwise than when it was exported: {difference}")
    return len(reference.images)


def watch(
    metrics_url: str | None,
    management: ManagementClient,
    inference: InferenceClient,
    version: str,
    reference: ReferenceOutputs,
    seconds: float,
) -> int:
    """Ask the default version about known images, and look at its workers and at what others are answered.

    Args:
        metrics_url: where the server counts its answers; None: they are not looked at.
        management: of the server.
        inference: of the server.
        version: which is the default now.
        reference: of that version.
        seconds: how long; at least one image is asked about.

    Returns:
        How many images it was asked about.

    Raises:
        DeploymentFailed: a wrong answer, a worker that died, or too many failures.
    """
    before = read_counts(metrics_url)
    workers = {worker.id: worker.pid for worker in management.describe(version).workers}
    deadline = time.monotonic() + seconds
    asked = failed = 0
    while not asked or time.monotonic() < deadline:
        row = asked % len(reference.images)
        asked += 1
        try:
            answer = inference.predict(reference.images[row], top_k=len(reference.class_names))
        except CifarError as error:
            failed += 1
            if failed >= _FAILED_PROBES:
                raise DeploymentFailed(
                    f"Version {version} failed on {failed} of {asked} known images: {error}"
                ) from error
            time.sleep(_PAUSE_S)
            continue
        difference = compare(answer, reference, np.array([row]))
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


def compare(answer: Answer, reference: ReferenceOutputs, rows: NDArray[np.int_]) -> str | None:
    """Say how an answer with all classes differs from what is recorded for these images; None: it does not."""
    try:
        got = np.array(
            [[dict(prediction.top_k)[name] for name in reference.class_names] for prediction in answer.predictions]
        )
    except KeyError as missing:
        return f"it gives no probability for the class {missing}"
    return find_difference(reference.probabilities[rows], got)


def _check_others(version: str, before: Counts, ended: Counts | None, counted: Counts | None) -> None:
    """Look for predictions that failed, of which TorchServe exposes no counter.

    They are those that workers count, and those that no worker has answered. What was answered is read later than what
    was asked, so that an answer which is not counted yet is not taken for a failure; a few failures hide behind the
    answers of that time, and the known images find those.
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


def _as_png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
