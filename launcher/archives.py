"""Checks the model store before the server sees it: TorchServe starts with a damaged archive and serves nothing."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson

from client.inference import MODEL_NAME
from deployment.signing import required_key, verify_archive
from launcher.errors import ArchiveUnusable
from launcher.serving import ServedVersion
from launcher.strict_zip import MAX_FILE, StrictZip, ZipAmbiguous, ZipDamaged
from training.digest import digest_file
from training.regular_file import open_regular

MANIFEST = "MAR-INF/MANIFEST.json"
MAX_MANIFEST = 1 << 20  # bytes; ours has 250
_BUILD = "build it again: make archive"


@dataclass(frozen=True)
class Archive:
    """An archive that is open for reading.

    Attributes:
        zip: what is in it.
        manifest: the part `model` of its manifest, which names a model; nothing else of it has been looked at.
        file: the file itself.
    """

    zip: StrictZip
    manifest: dict[str, Any]
    file: BufferedReader

    def find_file(self, key: str) -> str | None:
        """Return the name of a file that the manifest names under a key; None where it names none that is there."""
        name = self.manifest.get(key)
        return name if isinstance(name, str) and name in self.zip.names else None

    def extract(self, name: str, place: Path) -> str:
        """Unpack a file, and return its SHA-256; raises KeyError where there is none of that name."""
        digest = hashlib.sha256()
        with place.open("wb") as file:
            for chunk in self.zip.chunks(name):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()


def check_model_store(store: Path, models: list[str] | None = None) -> list[Path]:
    """Refuse a store whose archives TorchServe could not load, or that are not signed where they must be.

    Args:
        store: the folder.
        models: what is going to be loaded, such as `cifar=cifar-1.0.mar`; None: every archive.

    Returns:
        The archives that are going to be loaded, as absolute paths.

    Raises:
        ArchiveUnusable: no archive, a missing, truncated or changed one, or one without a manifest.
        SignatureRefused: CIFAR_VERIFY_KEY names a key, and an archive is not signed with its other half.
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
    with open_archive(archive) as content:
        content.zip.verify()


@contextmanager
def open_archive(path: Path, called: Path | None = None) -> Iterator[Archive]:
    """Open an archive that Java and Python read alike; entries are checked as they are read.

    Args:
        path: the file.
        called: what messages call it, if that is not where it lies.

    Raises:
        ArchiveUnusable: it is missing, damaged, no archive, or made to be read differently; here or in the block.
    """
    called = called or path
    try:
        file = open_regular(path, MAX_FILE)
    except FileNotFoundError:
        raise ArchiveUnusable(f"{called} is missing; build it: make archive") from None
    except OSError as error:
        raise ArchiveUnusable(f"{called} cannot be read: {error.strerror}. An archive is a regular file") from None
    try:
        with file:
            content = StrictZip(file)
            yield Archive(content, _read_manifest(called, content), file)
    except ZipDamaged as error:
        raise ArchiveUnusable(f"{called} is truncated or no archive ({error}); {_BUILD}") from None
    except ZipAmbiguous as error:
        raise ArchiveUnusable(f"{called} is rejected: {error}; {_BUILD}") from None


def _read_manifest(called: Path, content: StrictZip) -> dict[str, Any]:
    try:
        model = orjson.loads(content.read(MANIFEST, MAX_MANIFEST))["model"]
        if model["modelName"]:
            return dict(model)
        problem = "modelName is empty"
    except (ZipDamaged, ZipAmbiguous):
        raise
    except (KeyError, TypeError, ValueError) as error:
        problem = str(error)[:200]
    raise ArchiveUnusable(
        f"{called} has no manifest that names a model ({MANIFEST}: {problem}): it is truncated, or no archive; {_BUILD}"
    )
