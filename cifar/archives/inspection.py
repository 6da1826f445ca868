"""Checks an archive before any server sees it: TorchServe takes almost anything, and starts workers that die."""

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar.archives.archive import Archive, digest_path, open_archive, read_digest
from cifar.archives.model_file import read_model_file
from cifar.archives.network_check import check_network
from cifar.archives.reference_outputs import ReferenceOutputs
from cifar.archives.worker_counts import read_worker_counts
from cifar.common.errors import ArchiveRejected, ArchiveUnusable
from cifar.common.project import MODEL_NAME

# TorchServe reads versions from URLs and writes them into metrics, whose lines end at some other characters.
_VERSION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}"


@dataclass(frozen=True)
class Candidate:
    """An archive that has passed the checks.

    Attributes:
        path: the file.
        version: as its manifest says.
        sha256: of the file.
        size: of the file, bytes.
        model_digest: SHA-256 of the TorchScript file in it.
        metadata: what the TorchScript file says of itself (training/export.py).
        reference: images, and what the trained network said to them.
        recorded: whether a digest was recorded beside the archive, which it fits.
        not_run: why its network was not run for the check; None: it was, and answers as recorded.
    """

    path: Path
    version: str
    sha256: str
    size: int
    model_digest: str
    metadata: dict[str, Any]
    reference: ReferenceOutputs
    recorded: bool
    not_run: str | None = None


def inspect_archive(
    path: Path, called: Path | None = None, signed: bool = False, run_network: bool = True
) -> Candidate:
    """Check an archive without a server: whole, complete, as recorded, and its network answers as it was exported.

    Args:
        path: the file; no other process may change it meanwhile.
        called: what messages call it, if that is not where it lies.
        signed: its signature has been verified; if not, its network runs only where the machine can isolate it.
        run_network: whether to run it at all.

    Raises:
        ArchiveRejected: it is not; the message says what was found and what was expected.
    """
    called = called or path
    try:
        with open_archive(path, called) as archive, tempfile.TemporaryDirectory(prefix="cifar-check-") as folder:
            archive.file.seek(0)
            digest = hashlib.file_digest(archive.file, "sha256").hexdigest()
            recorded = _check_recorded_digest(path, called, digest)
            archive.zip.verify()
            version, model_name = _check_manifest(called, archive)
            read_worker_counts(called, archive)
            model = Path(folder) / "model.pt"
            model_digest = archive.extract(model_name, model)
            metadata, reference = read_model_file(f"{called}: {model_name}", model)
            not_run = check_network(called, model, signed) if run_network else "not asked for"
            size = archive.file.seek(0, 2)
    except ArchiveUnusable as error:
        raise ArchiveRejected(str(error)) from None
    except OSError as error:
        raise ArchiveRejected(
            f"{called} cannot be checked: {error.strerror}. The check needs room for its network in "
            f"{tempfile.gettempdir()}"
        ) from None
    return Candidate(path, version, digest, size, model_digest, metadata, reference, recorded, not_run)


def check_version(version: str) -> None:
    """Reject what cannot be a version's name; raises ArchiveRejected."""
    if not re.fullmatch(_VERSION, version):
        raise ArchiveRejected(
            f"{version!r} is no version; expected up to 50 letters, digits, dots, dashes and underscores"
        )


def _check_recorded_digest(path: Path, called: Path, digest: str) -> bool:
    try:
        recorded = read_digest(path)
    except (OSError, ValueError):
        raise ArchiveRejected(
            f"{digest_path(called)} holds no SHA-256; expected what `sha256sum` writes, or no such file"
        ) from None
    if recorded is None:
        return False
    if recorded != digest:
        raise ArchiveRejected(
            f"{called} is not the file that was built: its SHA-256 is {digest}, {digest_path(path).name} recorded "
            f"{recorded[:64]}. Build it again: make archive"
        )
    return True


def _check_manifest(called: Path, archive: Archive) -> tuple[str, str]:
    """Return the version and the name of the TorchScript file."""
    model = archive.manifest
    if model["modelName"] != MODEL_NAME:
        raise ArchiveRejected(
            f"{called} is of the model {_show(model['modelName'])}; this service is of {MODEL_NAME!r}"
        )
    version = model.get("modelVersion")
    if not isinstance(version, str) or not re.fullmatch(_VERSION, version):
        raise ArchiveRejected(
            f"{called} has the version {_show(version)}; expected up to 50 letters, digits, dots, dashes and "
            "underscores"
        )
    for key, kind in (("handler", "handler"), ("serializedFile", "network")):
        name = model.get(key)
        if not isinstance(name, str) or name.partition(":")[0] not in archive.zip.names:
            raise ArchiveRejected(
                f"{called} lacks its {kind}: its manifest names {_show(name)} ({key}), which is not in it"
            )
    if model.get("requirementsFile") or "requirements.txt" in archive.zip.names:
        raise ArchiveRejected(
            f"{called} asks for packages ({_show(model.get('requirementsFile') or 'requirements.txt')}), which this "
            "server does not install. Install them where the server runs, and pack without --requirements-file"
        )
    return version, str(model["serializedFile"])


def _show(value: object) -> str:
    return repr(value)[:100]  # it comes from outside
