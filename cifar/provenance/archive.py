"""The archive that is traced: which file it is, and what it says of itself without being run."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cifar.archives.archive import Archive, open_archive
from cifar.archives.model_file import METADATA_NAME, read_extra_files
from cifar.common.errors import ArchiveUnusable, NothingToTrace
from cifar.common.files import digest_file
from cifar.server.desired_state import read_desired_state

_SHOWN_NAME = 100  # characters of a version
_SHOWN_DIGITS = 12  # as many as X-Model-Digest has


@dataclass(frozen=True)
class TracedArchive:
    """An archive, whole or damaged.

    Attributes:
        path: the file.
        sha256: of the file.
        version: as its manifest says; None where that cannot be read.
        model_digest: SHA-256 of the TorchScript file in it; None where that cannot be read.
        metadata: what the TorchScript file says of itself (training/export.py); empty for one that was made elsewhere.
        damage: what is wrong with the file; None: nothing.
    """

    path: Path
    sha256: str
    version: str | None = None
    model_digest: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    damage: str | None = None

    def named(self, key: str) -> str | None:
        """Return what the metadata says; None where it says nothing."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) and value else None


def read_archive(path: Path) -> TracedArchive:
    """Read an archive; raises NothingToTrace where there is no such file."""
    try:
        sha256 = digest_file(path)
    except OSError as error:
        raise NothingToTrace(
            f"{path} cannot be read: {error.strerror}. Name another archive: --version or --archive"
        ) from None
    version = model_digest = None
    metadata: dict[str, Any] = {}
    try:
        with open_archive(path) as archive:
            version = str(archive.manifest["modelVersion"])[:_SHOWN_NAME]
            model_digest, metadata = _read_model(archive)
            archive.zip.verify()
    except ArchiveUnusable as error:
        return TracedArchive(
            path, sha256, version, model_digest, metadata, damage=f"it{str(error).removeprefix(str(path))}"
        )
    except KeyError as error:
        return TracedArchive(path, sha256, version, damage=f"it is truncated, damaged or no archive: no {error}")
    return TracedArchive(path, sha256, version, model_digest, metadata)


def find_version(store: Path, version: str) -> TracedArchive:
    """Return the archive of a version: the one that was deployed as it, else the one whose manifest says so.

    Raises:
        NothingToTrace: there is none, or there are several.
        InvalidStateFile: serving.json cannot be read.
    """
    serving = read_desired_state(store)
    served = serving.find(version) if serving else None
    if served is not None:
        return read_archive(store / served.archive)
    found = _read_store(store)
    return _only([archive for archive in found if archive.version == version], found, f"is of version {version}", store)


def find_digest(store: Path, digest: str) -> TracedArchive:
    """Return the archive with a digest.

    Args:
        store: the model store.
        digest: the value of X-Model-Digest, or a SHA-256 of weights, TorchScript file or archive: its first 8 digits or
            more.

    Raises:
        NothingToTrace: that is no digest, or no archive has it, or several have.
    """
    wanted = digest.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{8,64}", wanted):
        raise NothingToTrace(
            f"{digest!r} is no digest; expected 8 to 64 hexadecimal digits, such as the header X-Model-Digest of an "
            "answer. A version is named by --version"
        )
    found = _read_store(store)
    return _only(
        [candidate for candidate in found if _has_digest(candidate, wanted)], found, f"has the digest {wanted}", store
    )


def _has_digest(archive: TracedArchive, wanted: str) -> bool:
    digests = (archive.sha256, archive.model_digest, archive.named("weights_digest"))
    return any(digest is not None and digest.startswith(wanted) for digest in digests)


def _read_store(store: Path) -> list[TracedArchive]:
    # Hidden ones are being written.
    return [read_archive(path) for path in sorted(store.glob("*.mar")) if not path.name.startswith(".")]


def _only(fitting: Sequence[TracedArchive], found: Sequence[TracedArchive], what: str, store: Path) -> TracedArchive:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        listed = "; ".join(map(_describe, fitting))
        raise NothingToTrace(f"More than one archive in {store} {what}: {listed}. Name the file: --archive")
    listed = "; ".join(map(_describe, found)) or "no archive at all (build one: make archive)"
    raise NothingToTrace(f"No archive in {store} {what}. It holds {listed}")


def _describe(archive: TracedArchive) -> str:
    if archive.version is None:
        return f"{archive.path.name}, but {archive.damage}"
    weights = (archive.named("weights_digest") or "unknown")[:_SHOWN_DIGITS]
    return f"{archive.path.name} (version {archive.version}, weights {weights}, SHA-256 {archive.sha256[:8]}…)"


def _read_model(archive: Archive) -> tuple[str, dict[str, Any]]:
    """Return the SHA-256 of the TorchScript file, and its metadata; raises KeyError where there is no such file."""
    with tempfile.TemporaryDirectory(prefix="cifar-trace-") as folder:
        model = Path(folder) / "model.pt"
        digest = archive.extract(str(archive.manifest["serializedFile"]), model)
        try:
            metadata = orjson.loads(read_extra_files(model)[METADATA_NAME])
        except Exception:  # of another origin, or made to be misread: the parsers raise nearly anything
            metadata = None
    return digest, metadata if isinstance(metadata, dict) else {}
