"""Takes back what a deployment has done, and keeps serving.json and the server in step."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from cifar.archives.archive import digest_path, signature_path
from cifar.client.management import ManagementClient
from cifar.common.errors import NotDrained
from cifar.common.files import digest_file
from cifar.deployment.observed_state import describe_served
from cifar.deployment.versions import drain, remove
from cifar.server.desired_state import (
    DesiredState,
    archive_path,
    forget_desired_state,
    read_desired_state,
    write_desired_state,
)


def undo(store: Path, management: ManagementClient, current: DesiredState, default: str | None) -> None:
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
    write_desired_state(store, replace(current, default=default, versions=versions, underway=None))


@contextmanager
def remembered_first(store: Path, change: DesiredState) -> Iterator[None]:
    """Write down what is about to be, then let the block change the server: with a full disk, nothing changes.

    Where the server does not do it, what was remembered before is remembered again.
    """
    before = read_desired_state(store)
    write_desired_state(store, change)
    try:
        yield
    except BaseException:
        if before is not None:
            write_desired_state(store, before)
        else:
            forget_desired_state(store)
        raise


def _remove_copy(archive: Path, sha256: str) -> None:
    """Remove an archive that a deployment has put into the store; one of other content, it has not."""
    if archive.is_symlink() or archive.exists():
        if archive.is_symlink() or not archive.is_file() or digest_file(archive) != sha256:
            return
        archive.unlink()
    for beside in (digest_path(archive), signature_path(archive)):
        beside.unlink(missing_ok=True)
