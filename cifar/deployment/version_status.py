"""What a running server says of each version."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cifar.client.management import ManagementClient, ModelVersion
from cifar.common.errors import CifarError, ModelNotFound


@dataclass(frozen=True)
class VersionStatus:
    """One version, as `cifar status --json` prints it.

    Attributes:
        version: as its archive says.
        default: whether requests that name no version get this one.
        archive: its file name in the model store.
        ready_workers: those that have loaded the model.
        workers: how many there should be at least, as the server was told last.
        max_workers: and at most.
        queue_length: requests that wait for one.
        started: when the first of its workers was started; None without workers.
        about: what its handler says (docs/http-api.md, "What is served"); empty where it does not answer.
    """

    version: str
    default: bool
    archive: str
    ready_workers: int
    workers: int
    max_workers: int
    queue_length: int
    started: datetime | None
    about: dict[str, Any]


def read_status(management: ManagementClient) -> list[VersionStatus]:
    """Return the versions in the order in which they were registered; raises CifarError (cifar.common.errors)."""
    try:
        default = management.describe().version
    except ModelNotFound:
        return []
    return [_read_version(management, described, default) for described in management.describe_all()]


def read_strangers(management: ManagementClient) -> list[ModelVersion]:
    """Return the versions of every other model that the server has, under whatever name; raises CifarError."""
    strangers = (name for name in management.list_models() if name != management.model)
    return [version for name in strangers for version in management.describe_all(name)]


def _read_version(management: ManagementClient, described: ModelVersion, default: str) -> VersionStatus:
    return VersionStatus(
        version=described.version,
        default=described.version == default,
        archive=described.archive,
        ready_workers=described.ready_workers,
        workers=described.min_workers,
        max_workers=described.max_workers,
        queue_length=described.queue_length,
        started=min((worker.started for worker in described.workers), default=None),
        about=_ask_handler(management, described),
    )


def _ask_handler(management: ManagementClient, described: ModelVersion) -> dict[str, Any]:
    """Return what the handler says; a version without a worker would leave the question in its queue."""
    if not described.ready_workers:
        return {}
    try:
        return management.customized(described.version)
    except CifarError:  # a busy or foreign handler: the rest of the table is worth having
        return {}
