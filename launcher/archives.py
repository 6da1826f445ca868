"""Checks the model store before the server sees it: TorchServe starts with a damaged archive and serves nothing."""

import json
import zipfile
import zlib
from pathlib import Path

from launcher.errors import ArchiveUnusable

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
    archives = sorted(store.glob("*.mar")) if models is None else [store / model.rpartition("=")[2] for model in models]
    if not archives:
        raise ArchiveUnusable(f"{store} holds no archive (*.mar); build one: make archive")
    for archive in archives:
        _check_archive(archive)
    return [archive.resolve() for archive in archives]


def _check_archive(archive: Path) -> None:
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
        raise ArchiveUnusable(f"{archive} has no manifest that names a model ({_MANIFEST}); build it again") from None
    if damaged or not name:
        raise ArchiveUnusable(f"{archive} is damaged in {damaged or _MANIFEST}; build it again: make archive")
