"""A .mar file: its manifest, and the files beside it with its SHA-256 and its signature.

TorchServe starts with a damaged archive and serves nothing; so it is read here first, as strictly as zip files can be.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson

from cifar.archives.strict_zip import MAX_FILE, StrictZip, ZipAmbiguous, ZipDamaged
from cifar.common.errors import ArchiveUnusable
from cifar.common.files import atomic_write, open_regular, read_bounded

MANIFEST = "MAR-INF/MANIFEST.json"
MAX_MANIFEST = 1 << 20  # bytes; ours has 250
MAX_DIGEST_FILE = 1 << 16  # bytes of the file beside an archive; sha256sum writes 100

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


def check_archive(archive: Path) -> None:
    """Reject what is no whole archive with a manifest that names a model; raises ArchiveUnusable."""
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


def signature_path(archive: Path) -> Path:
    """Say where the signature of an archive lies: beside it, as `<archive>.sig`."""
    return archive.with_name(f"{archive.name}.sig")


def digest_path(archive: Path) -> Path:
    """Say where the SHA-256 of an archive is recorded: beside it, as `<archive>.sha256`."""
    return archive.with_name(f"{archive.name}.sha256")


def record_digest(archive: Path, digest: str) -> None:
    """Write an archive's SHA-256 beside it, in the form that `sha256sum --check` reads."""
    with atomic_write(digest_path(archive)) as recorded:
        recorded.write_text(f"{digest}  {archive.name}\n", encoding="ascii")


def read_digest(archive: Path) -> str | None:
    """Return the SHA-256 that was recorded beside an archive; None where none was.

    Raises:
        OSError: the file cannot be read, or is larger than such a file can be.
        ValueError: it holds no SHA-256.
    """
    try:
        words = read_bounded(digest_path(archive), MAX_DIGEST_FILE).decode("ascii").split()
    except FileNotFoundError:
        return None
    if not words:
        raise ValueError("it is empty")
    return words[0].lower()


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
