"""Says where what a server serves is not what was deployed to it."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cifar.archives.archive import open_archive
from cifar.archives.worker_counts import read_worker_counts
from cifar.client.management import ModelVersion
from cifar.common.errors import ArchiveRefused, ArchiveUnusable, ServingUnusable
from cifar.deployment.version_status import VersionStatus
from cifar.server.desired_state import Serving, read_serving, store_lock
from cifar.server.model_store import check_deployed


def find_strangers(versions: Sequence[ModelVersion]) -> list[str]:
    """Report the versions of models that no deployment knows: they run code that was not checked.

    Args:
        versions: of every model but the one that is deployed here.

    Returns:
        A sentence for each, and what to do about it.
    """
    return [
        f"The model {it.name!r}, version {it.version}, is served from {it.archive!r}, and was not deployed. If "
        "it was not meant to be there, find out who registered it; `make down up` takes it away."
        for it in versions
    ]


def find_differences(found: Sequence[VersionStatus], store: Path, started: Collection[str] | None = None) -> list[str]:
    """Compare what a server has with what serving.json says; before a deployment, with what it was started with.

    Args:
        found: all versions of the server.
        store: its model store.
        started: the archives that it was started with; None: unknown; before a deployment only workers are compared.

    Returns:
        A sentence for each difference, and what to do about it.
    """
    try:
        if read_serving(store) is None:  # before the lock, which would make the folder
            strangers = [] if started is None else list(_compare_with_start(found, started))
            return strangers + [line for version in found for line in _compare_workers(version, None, store)]
        with store_lock(store) as free:
            if not free:
                return ["A deployment is being made just now; what is served is changing."]
            serving = read_serving(store)
    except ServingUnusable as error:
        return [str(error)]
    if serving is None:
        return []
    return list(_compare(found, serving, store))


def _compare_with_start(found: Sequence[VersionStatus], started: Collection[str]) -> Iterator[str]:
    for version in found:
        if version.archive not in started:
            yield _undeployed(version)


def _undeployed(version: VersionStatus) -> str:
    return (
        f"Version {version.version} is served from {version.archive!r}, and was not deployed. `cifar undeploy "
        f"{version.version}` takes it away."
    )


def _compare(found: Sequence[VersionStatus], serving: Serving, store: Path) -> Iterator[str]:
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
        except (ArchiveRefused, ArchiveUnusable):  # one that was deployed is told of by its digest
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
