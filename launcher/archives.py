"""Checks the model store before the server sees it: TorchServe starts with a damaged archive and serves nothing."""

import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from client.inference import MODEL_NAME
from launcher.errors import ArchiveUnusable
from launcher.serving import ServedVersion
from training.digest import digest_file

_MANIFEST = "MAR-INF/MANIFEST.json"


def check_model_store(store: Path, models: list[str] | None = None) -> list[Path]:
    """Refuse a store whose archives TorchServe could not load.

    Args:
        store: the folder.
        models: what is going to be loaded, such as `cifar=cifar-1.0.mar`; None: every archive.

    Returns:
        The archives that are going to be loaded, as absolute paths.

    Raises:
        ArchiveUnusable: no archive, a missing, truncated or changed one, or one without a manifest.
    """
    # Hidden ones are being written.
    found = (path for path in sorted(store.glob("*.mar")) if not path.name.startswith("."))
    archives = list(found) if models is None else [store / model.rpartition("=")[2] for model in models]
    if not archives:
        raise ArchiveUnusable(f"{store} holds no archive (*.mar); build one: make archive")
    for archive in archives:
        check_archive(archive)
    return [archive.resolve() for archive in archives]


def check_deployed(store: Path, versions: Iterable[ServedVersion]) -> None:
    """Refuse archives that are not, byte for byte, those that were deployed.

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


def check_archive(archive: Path) -> None:
    """Refuse what is no whole archive with a manifest that names a model; raises ArchiveUnusable."""
    try:
        with zipfile.ZipFile(archive) as content:
            damaged = content.testzip()
            manifest = json.loads(content.read(_MANIFEST))
            name = manifest["model"]["modelName"]
    except FileNotFoundError:
        raise ArchiveUnusable(f"{archive} is missing; build it: make archive") from None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArchiveUnusable(f"{archive} is truncated or no archive ({error}); build it again: make archive") from None
    except (KeyError, TypeError, ValueError):
        raise ArchiveUnusable(
            f"{archive} has no manifest that names a model ({_MANIFEST}): it is truncated, or no archive; build it "
            "again: make archive"
        ) from None
    if damaged or not name:
        raise ArchiveUnusable(f"{archive} is damaged in {damaged or _MANIFEST}; build it again: make archive")
