"""What a server serves now, and where that is not what was deployed to it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cifar.archives.archive import open_archive
from cifar.archives.worker_counts import read_worker_counts
from cifar.client.management import ManagementClient, ModelVersion
from cifar.common.errors import (
    ArchiveRejected,
    ArchiveUnusable,
    CifarError,
    DeploymentFailed,
    InvalidStateFile,
    ModelNotFound,
)
from cifar.common.files import digest_file
from cifar.server.desired_state import (
    DesiredState,
    ServedVersion,
    is_archive_name,
    is_version,
    read_desired_state,
    store_lock,
)
from cifar.server.model_store import check_deployed


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


def read_other_models(management: ManagementClient) -> list[ModelVersion]:
    """Return the versions of every other model that the server has, under whatever name; raises CifarError."""
    strangers = (name for name in management.list_models() if name != management.model)
    return [version for name in strangers for version in management.describe_all(name)]


def describe_served(management: ManagementClient) -> tuple[str | None, list[ModelVersion]]:
    """Return the default version and all versions; None and nothing where the server has no model yet."""
    try:
        return management.describe().version, management.describe_all()
    except ModelNotFound:
        return None, []


def read_observed_state(store: Path, management: ManagementClient) -> DesiredState:
    """Return what the server serves, in the words of serving.json; the history and what is underway are as remembered.

    Raises:
        DeploymentFailed: the server has an archive that is not in this model store.
        InvalidStateFile: serving.json cannot be read.
    """
    remembered = read_desired_state(store) or DesiredState(None, ())
    default, described = describe_served(management)
    versions = tuple(_record(store, remembered, version) for version in described)
    return replace(remembered, default=default, versions=versions)


def find_mismatches(found: Sequence[VersionStatus], store: Path, started: Collection[str] | None = None) -> list[str]:
    """Compare what a server has with what serving.json says; before a deployment, with what it was started with.

    Args:
        found: all versions of the server.
        store: its model store.
        started: the archives that it was started with; None: unknown; before a deployment only workers are compared.

    Returns:
        A sentence for each difference, and what to do about it.
    """
    try:
        if read_desired_state(store) is None:  # before the lock, which would make the folder
            strangers = [] if started is None else list(_compare_with_start(found, started))
            return strangers + [line for version in found for line in _compare_workers(version, None, store)]
        with store_lock(store) as free:
            if not free:
                return ["A deployment is being made just now; what is served is changing."]
            serving = read_desired_state(store)
    except InvalidStateFile as error:
        return [str(error)]
    if serving is None:
        return []
    return list(_compare(found, serving, store))


def find_undeployed(versions: Sequence[ModelVersion]) -> list[str]:
    """Report the versions of models that no deployment knows: they run code that was not checked.

    Args:
        versions: of every model but the one that is deployed here.

    Returns:
        A sentence for each, and what to do about it.
    """
    return [
        f"The model {version.name!r}, version {version.version}, is served from {version.archive!r}, and was not "
        "deployed. If it was not meant to be there, find out who registered it; `make down up` takes it away."
        for version in versions
    ]


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
        return management.describe_handler(described.version)
    except CifarError:  # a busy or foreign handler: the rest of the table is worth having
        return {}


def _record(store: Path, remembered: DesiredState, described: ModelVersion) -> ServedVersion:
    archive = Path(described.archive).name
    served = remembered.find(described.version)
    underway = remembered.underway
    if served is not None and served.archive == archive:
        return served
    if underway is not None and (underway.version, underway.archive) == (described.version, archive):
        return ServedVersion(underway.version, archive, underway.sha256)
    if not is_version(described.version) or not is_archive_name(archive):
        raise DeploymentFailed(
            f"The server serves version {described.version!r} from {described.archive!r}: neither `cifar deploy` nor "
            "anybody who uses its names has registered that. Unregister it first, at the management API: DELETE "
            f"/models/{described.name}/{quote(described.version, safe='')}"
        )
    try:
        return ServedVersion(described.version, archive, digest_file(store / archive))
    except OSError as error:
        raise DeploymentFailed(
            f"The server serves version {described.version} from {described.archive}, which cannot be read in {store} "
            f"({error.strerror}). Name the model store of that server: --model-store"
        ) from None


def _compare_with_start(found: Sequence[VersionStatus], started: Collection[str]) -> Iterator[str]:
    for version in found:
        if version.archive not in started:
            yield _undeployed(version)


def _undeployed(version: VersionStatus) -> str:
    return (
        f"Version {version.version} is served from {version.archive!r}, and was not deployed. `cifar undeploy "
        f"{version.version}` takes it away."
    )


def _compare(found: Sequence[VersionStatus], serving: DesiredState, store: Path) -> Iterator[str]:
    underway = serving.underway
    if underway is not None:
        yield (
            f"The deployment of version {underway.version} was interrupted: `cifar deploy` with the same archive "
            f"finishes it, `cifar rollback` or `cifar undeploy {underway.version}` undoes it."
        )
    default = next((version.version for version in found if version.default), None)
    if default != serving.default:
        yield f"The default is {default}, and should be {serving.default}. `cifar up` makes it so."
    there = {version.version: version for version in found}
    for served in serving.versions:
        version = there.pop(served.version, None)
        if version is None:
            yield f"Version {served.version} is not served, and should be. `cifar up` registers it."
        elif version.archive != served.archive:
            yield (
                f"Version {served.version} is served from {version.archive!r}, and should be from {served.archive!r}. "
                "`make down up` makes it so."
            )
        else:
            yield from _compare_workers(version, served.workers, store)
        try:
            check_deployed(store, [served])
        except ArchiveUnusable as error:
            yield str(error)
    for extra in there.values():
        if underway is None or extra.version != underway.version:
            yield _undeployed(extra)


def _compare_workers(version: VersionStatus, remembered: int | None, store: Path) -> Iterator[str]:
    """Compare with what `cifar scale` has set, else with what the archive asks for."""
    if remembered is not None:
        wanted = (remembered, remembered)
    else:
        archive = store / Path(version.archive).name
        try:
            with open_archive(archive) as content:
                wanted = read_worker_counts(archive, content)
        except (ArchiveRejected, ArchiveUnusable):  # one that was deployed is told of by its digest
            return
    if (version.workers, version.max_workers) != wanted:
        by_up = (
            remembered is not None and version.workers != remembered
        )  # it looks no further (cifar/server/reconcile.py)
        command = "cifar up" if by_up else f"cifar scale {version.version} {wanted[0]}"
        yield (
            f"Version {version.version} has {_range(version.workers, version.max_workers)} workers, and should have "
            f"{_range(*wanted)}. `{command}` makes it so."
        )


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"
