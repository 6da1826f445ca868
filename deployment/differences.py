"""Says where what a server serves is not what was deployed to it."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from client.management import ModelVersion
from deployment.version_status import VersionStatus
from launcher.archives import check_deployed
from launcher.errors import ArchiveUnusable, ServingUnusable
from launcher.serving import Serving, read_serving, store_lock


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
    """Compare what a server has with what serving.json says; before any deployment, with what it was started with.

    Args:
        found: all versions of the server.
        store: its model store.
        started: the archives that it was started with; None: unknown, and then nothing is compared before a deployment.

    Returns:
        A sentence for each difference, and what to do about it.
    """
    try:
        if read_serving(store) is None:  # before the lock, which would make the folder
            return [] if started is None else list(_compare_with_start(found, started))
        with store_lock(store) as free:
            if not free:
                return ["A deployment is being made just now; what is served is changing."]
            serving = read_serving(store)
    except ServingUnusable as error:
        return [str(error)]
    return list(_compare(found, serving, store)) if serving is not None else []


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
        elif served.workers is not None and version.workers != served.workers:
            yield (
                f"Version {served.version} has {version.workers} workers, and should have {served.workers}. `cifar up` "
                "makes it so."
            )
        try:
            check_deployed(store, [served])
        except ArchiveUnusable as error:
            yield str(error)
    for extra in there.values():
        if underway is None or extra.version != underway.version:
            yield _undeployed(extra)
