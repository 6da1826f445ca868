"""Says where what a server serves is not what was deployed to it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from deployment.version_status import VersionStatus
from launcher.archives import check_deployed
from launcher.errors import ArchiveUnusable, ServingUnusable
from launcher.serving import Serving, read_serving, store_lock


def find_differences(found: Sequence[VersionStatus], store: Path) -> list[str]:
    """Compare what a server has with what serving.json says; nothing where nothing was ever deployed.

    Args:
        found: all versions of the server.
        store: its model store.

    Returns:
        A sentence for each difference, and what to do about it.
    """
    try:
        serving = read_serving(store)
    except ServingUnusable as error:
        return [str(error)]
    if serving is None:
        return []
    with store_lock(store) as free:
        if not free:
            return ["A deployment is being made just now; what is served is changing."]
    return list(_compare(found, serving, store))


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
        elif served.workers is not None and version.workers != served.workers:
            yield (
                f"Version {served.version} has {version.workers} workers, and should have {served.workers}. `cifar up` "
                "makes it so."
            )
        try:
            check_deployed(store, [served])
        except ArchiveUnusable as error:
            yield str(error)
    for extra in there:
        if underway is None or extra != underway.version:
            yield f"Version {extra} is served, and should not be. `cifar undeploy {extra}` takes it away."
