"""Whom a trace asks: the weights and the commits of a checkout, MLflow, and the running server."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifar.client.management import ManagementClient
from cifar.common.errors import CifarError, InvalidFile, ServerUnreachable, TrackingError
from cifar.common.files import digest_file, read_json
from cifar.common.mlflow_store import first_contact, import_mlflow, store_address, store_errors
from cifar.common.project import MODEL_NAME
from cifar.common.training_record import EVALUATION_NAME, WEIGHTS_NAME, read_record
from cifar.provenance.archive import TracedArchive

_PLACES = ("training/pretrained/*", "artifacts/**")  # of weights, in a checkout
_ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class LocalWeights:
    """The weights that an archive was made of, where they are at hand.

    Attributes:
        file: relative to the checkout; None: they are not there.
        record: training.json beside them.
        evaluation: evaluation.json beside them.
        problem: what contradicts the archive; None: nothing does.
    """

    file: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class RecordedRun:
    """A run, as MLflow has it.

    Attributes:
        status: MLflow's word: FINISHED, KILLED, FAILED, RUNNING.
        deleted: it is in MLflow's bin.
        params, tags: what was recorded.
        accuracy: on the test images; None: it was never recorded.
    """

    status: str
    deleted: bool
    params: dict[str, str]
    tags: dict[str, str]
    accuracy: float | None


@dataclass(frozen=True)
class RegisteredFile:
    """A version in MLflow's registry.

    Attributes:
        number: of the version.
        tags: what training/register.py wrote.
        trained_in: the run that trained it, which may have been in another store.
    """

    number: int
    tags: dict[str, str]
    trained_in: str | None


@dataclass(frozen=True)
class Tracked:
    """What MLflow says.

    Attributes:
        address: of its store.
        silence: why it could not be asked; None: it was.
        run: the one that the archive names; None: it is not in this store.
        registered: the version that has this TorchScript file; None: none has.
        other: without such a version: the one that the same weights were registered as, for the same archive version.
    """

    address: str = ""
    silence: str | None = None
    run: RecordedRun | None = None
    registered: RegisteredFile | None = None
    other: RegisteredFile | None = None


def find_weights(checkout: Path, archive: TracedArchive) -> LocalWeights:
    """Look for the weights file that an archive was made of."""
    digest, run = archive.named("weights_digest"), archive.named("mlflow_run")
    found, contradiction = [], None
    for file in sorted({file for place in _PLACES for file in checkout.glob(f"{place}/{WEIGHTS_NAME}")}):
        actual, name, unreadable = digest_file(file), file.relative_to(checkout), None
        try:
            record = read_record(file) or {}
            evaluation = read_json(file.parent / EVALUATION_NAME) or {}
        except InvalidFile as error:
            record, evaluation, unreadable = {}, {}, str(error)
        if actual == digest:
            found.append(LocalWeights(name, record, evaluation, unreadable))
        elif run is not None and record.get("mlflow_run") == run:
            contradiction = f"by its training.json {name} is of the same run, but its SHA-256 is {actual}"
    # Of copies the one with the right record says most.
    best = min(found, key=lambda weights: (weights.record.get("mlflow_run") != run, not weights.record), default=None)
    return best or LocalWeights(problem=contradiction)


def ask_mlflow(archive: TracedArchive) -> Tracked:
    """Look up the run that an archive names, and the version that has its TorchScript file; nothing is written."""
    try:
        client, address = import_mlflow().MlflowClient, store_address()
        _check_store_exists()
        with store_errors("nothing can be looked up"), first_contact():
            run_id = archive.named("mlflow_run")
            run = _find_run(client(), run_id) if run_id else None
            registered, other = _find_registered(client(), archive)
    except TrackingError as error:
        return Tracked(silence=str(error))
    return Tracked(address, None, run and _describe_run(run), registered, other)


def check_commit(checkout: Path, commit: str) -> tuple[bool | None, str]:
    """Tell whether a checkout has a commit; None where it cannot tell; and why."""
    if not re.fullmatch("[0-9a-f]{7,64}", commit):
        return (None, "trained outside of a git checkout") if commit == "unknown" else (False, "this names no commit")
    try:
        root = _git(checkout, "rev-parse", "--show-toplevel")
        # An unpacked copy may lie inside of another project's checkout, whose commits are none of its own.
        if root.returncode or Path(root.stdout.strip()) != checkout.resolve():
            return None, f"{checkout} is no git checkout"
        if not _git(checkout, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
            return True, "in this checkout"
        if _git(checkout, "rev-parse", "--is-shallow-repository").stdout.strip() == "true":
            return None, "this checkout is shallow: git fetch --unshallow"
    except OSError as error:
        return None, f"git cannot be run: {error.strerror}"
    return False, "no such commit in this checkout; git fetch may bring it"


def ask_server(url: str, version: str) -> dict[str, Any] | str:
    """Return what a running server says of a version, or why it says nothing."""
    try:
        with ManagementClient(url, timeout_s=_ANSWER_TIMEOUT_S, attempts=1) as management:
            if not management.describe(version).ready_workers:  # the question would stay in its queue
                return f"no worker of version {version} is ready"
            return management.describe_handler(version)
    except ServerUnreachable as error:
        return f"no server answers: {error.reason}"
    except CifarError as error:
        return str(error)


def _check_store_exists() -> None:
    """Raise TrackingError where MLflow would make a database by asking it: a trace leaves nothing behind."""
    mlflow = import_mlflow()
    for uri in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
        scheme, _, path = uri.partition(":///")
        if scheme == "sqlite" and not Path(path).is_file():
            raise TrackingError(f"there is no store at {uri}; MLFLOW_TRACKING_URI names another")


def _find_run(client: Any, run_id: str) -> Any:
    mlflow = import_mlflow()
    try:
        return client.get_run(run_id)
    except mlflow.MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _describe_run(run: Any) -> RecordedRun:
    deleted = run.info.lifecycle_stage != "active"
    return RecordedRun(run.info.status, deleted, run.data.params, run.data.tags, run.data.metrics.get("test_accuracy"))


def _find_registered(client: Any, archive: TracedArchive) -> tuple[RegisteredFile | None, RegisteredFile | None]:
    """Return the version with this file, and without one the last that was registered in its place."""
    weights, version = archive.named("weights_digest"), archive.named("version")
    if archive.model_digest is None or weights is None:  # nothing that versions could be told apart by
        return None, None
    versions = sorted(
        client.search_model_versions(f"name = '{MODEL_NAME}'"), key=lambda registered: int(registered.version)
    )
    same = [registered for registered in versions if registered.tags.get("model_digest") == archive.model_digest]
    if same:
        return _describe_registered(client, same[0]), None
    others = [
        registered
        for registered in versions
        if (registered.tags.get("weights_digest"), registered.tags.get("archive_version")) == (weights, version)
    ]
    return None, _describe_registered(client, others[-1]) if others else None


def _describe_registered(client: Any, version: Any) -> RegisteredFile:
    # What was trained into another store is registered from a run that says so.
    run = _find_run(client, version.run_id) if version.run_id else None
    trained_in = run.data.tags.get("trained_in_run", version.run_id) if run else version.run_id
    return RegisteredFile(int(version.version), version.tags, trained_in)


def _git(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
