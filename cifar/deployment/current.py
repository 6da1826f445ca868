"""What is served now: what the server says, with what is remembered of it; and how an interrupted deployment ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from cifar.client.management import ManagementClient, ModelVersion
from cifar.common.errors import DeploymentFailed, ModelNotFound, NotDrained
from cifar.common.files import digest_file
from cifar.deployment.versions import drain, remove
from cifar.server.desired_state import (
    ServedVersion,
    Serving,
    Underway,
    archive_path,
    forget_serving,
    is_archive_name,
    is_version,
    read_serving,
    write_serving,
)


def describe_served(management: ManagementClient) -> tuple[str | None, list[ModelVersion]]:
    """Return the default version and all versions; None and nothing where the server has no model yet."""
    try:
        return management.describe().version, management.describe_all()
    except ModelNotFound:
        return None, []


def read_current(store: Path, management: ManagementClient) -> Serving:
    """Return what the server serves, in the words of serving.json; the history and what is underway are as remembered.

    Raises:
        DeploymentFailed: the server has an archive that is not in this model store.
        ServingUnusable: serving.json cannot be read.
    """
    remembered = read_serving(store) or Serving(None, ())
    default, described = describe_served(management)
    versions = tuple(_remember(store, remembered, version) for version in described)
    return replace(remembered, default=default, versions=versions)


def undo(store: Path, management: ManagementClient, current: Serving, default: str | None) -> None:
    """Take back what `current.underway` has done: the version goes, and another is the default again.

    Args:
        store: the model store.
        management: of its server.
        current: what is served, with the deployment to be undone.
        default: the version that answers from now on; None: there was none before.
    """
    underway = current.underway
    if underway is None:
        return
    serves = describe_served(management)[0]
    if serves == underway.version and default is not None and default != serves:
        management.set_default(default)
        with suppress(NotDrained):  # with dead workers it never will be
            drain(management, underway.version)
    if underway.registered:
        remove(management, underway.version)
    if underway.copied:
        _remove_copy(archive_path(store, underway.archive), underway.sha256)
    gone = underway.version if underway.registered else None
    versions = tuple(served for served in current.versions if served.version != gone)
    write_serving(store, replace(current, default=default, versions=versions, underway=None))


@contextmanager
def remembered_first(store: Path, change: Serving) -> Iterator[None]:
    """Write down what is about to be, then let the block change the server: with a full disk, nothing changes.

    Where the server does not do it, what was remembered before is remembered again.
    """
    before = read_serving(store)
    write_serving(store, change)
    try:
        yield
    except BaseException:
        if before is not None:
            write_serving(store, before)
        else:
            forget_serving(store)
        raise


def _remove_copy(archive: Path, sha256: str) -> None:
    """Remove an archive that a deployment has put into the store; one of other content, it has not."""
    if archive.is_symlink() or archive.exists():
        if archive.is_symlink() or not archive.is_file() or digest_file(archive) != sha256:
            return
        archive.unlink()
    for beside in (".sha256", ".sig"):
        archive.with_name(archive.name + beside).unlink(missing_ok=True)


def same_archive(underway: Underway | None, version: str, sha256: str) -> bool:
    """Tell whether an interrupted deployment was of this archive, and can be brought to its end."""
    return underway is not None and (underway.version, underway.sha256) == (version, sha256)


def _remember(store: Path, remembered: Serving, described: ModelVersion) -> ServedVersion:
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
