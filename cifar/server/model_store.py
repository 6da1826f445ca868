"""Checks the model store before the server sees it: TorchServe starts with a damaged archive and serves nothing."""

from collections.abc import Iterable
from pathlib import Path

from cifar.archives.archive import check_archive
from cifar.archives.signing import required_key, verify_archive
from cifar.common.errors import ArchiveRejected, ArchiveUnusable
from cifar.common.files import digest_file
from cifar.common.project import MODEL_NAME
from cifar.server.desired_state import DESIRED_STATE_NAME, ServedVersion, read_desired_state


def check_model_store(store: Path, models: list[str] | None = None) -> list[Path]:
    """Reject a store whose archives TorchServe could not load, or that are not signed where they must be.

    Args:
        store: the folder.
        models: what is going to be loaded, such as `cifar=cifar-1.0.mar`; None: every archive.

    Returns:
        The archives that are going to be loaded, as absolute paths.

    Raises:
        ArchiveUnusable: no archive, a missing, truncated or changed one, or one without a manifest.
        SignatureRejected: CIFAR_VERIFY_KEY names a key, and an archive is not signed with its other half.
    """
    # Hidden ones are being written.
    found = (path for path in sorted(store.glob("*.mar")) if not path.name.startswith("."))
    archives = list(found) if models is None else [store / model.rpartition("=")[2] for model in models]
    if not archives:
        raise ArchiveUnusable(f"{store} holds no archive (*.mar); build one: make archive")
    key = required_key()
    for archive in archives:
        check_archive(archive)
        if key is not None:
            verify_archive(archive, key)
    return [archive.resolve() for archive in archives]


def check_deployed(store: Path, versions: Iterable[ServedVersion]) -> None:
    """Reject archives that are not, byte for byte, those that were deployed.

    Raises:
        ArchiveUnusable: one is missing, or has changed.
    """
    for served in versions:
        archive = store / served.archive
        try:
            digest = digest_file(archive)
        except OSError as error:
            raise ArchiveUnusable(
                f"{archive}, which was deployed as version {served.version}, cannot be read: {error.strerror}. Restore "
                f"it (SHA-256 {served.sha256}), or go on without what was deployed: cifar up {MODEL_NAME}=ARCHIVE"
            ) from None
        if digest != served.sha256:
            raise ArchiveUnusable(
                f"{archive} is not what was deployed as version {served.version}: its SHA-256 is {digest}, that of the "
                f"deployed one {served.sha256}. Restore it, and deploy what is there now under a version of its own; "
                f"or go on without what was deployed: cifar up {MODEL_NAME}=ARCHIVE"
            )


def check_replaceable(archive: Path, digest: str) -> None:
    """Reject to put other content in the place of what was deployed: a restart needs that, byte for byte.

    Args:
        archive: its place in a model store, whose lock the caller holds.
        digest: SHA-256 of what is to be there.

    Raises:
        ArchiveRejected: it is deployed, or was the default, with other content.
        InvalidStateFile: what is deployed is not known.
    """
    serving = read_desired_state(archive.parent)
    for served in (*serving.versions, *serving.history) if serving else ():
        if served.archive == archive.name and served.sha256 != digest:
            raise ArchiveRejected(
                f"{archive} was deployed as version {served.version}, and what was built now differs from it. Build it "
                f"under another version (make archive VERSION=…), or forget what was deployed: rm {archive.parent}/"
                f"{DESIRED_STATE_NAME}"
            )
