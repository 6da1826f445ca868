"""Checks an archive before any server sees it: TorchServe takes almost anything, and starts workers that die."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from client.inference import MODEL_NAME
from deployment.certificate import Certificate
from deployment.errors import ArchiveRefused
from launcher.archives import check_archive
from launcher.errors import ArchiveUnusable
from training.digest import digest_file

MAX_BYTES = 1 << 30  # unpacked; weights of this kind of network are some MB
# TorchServe reads versions from URLs and writes them into metrics, whose lines end at some other characters.
_VERSION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}"

_MANIFEST = "MAR-INF/MANIFEST.json"
_PROBE_TIMEOUT_S = 120


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
        certificate: pictures, and what the trained network said to them.
        recorded: whether a digest was recorded beside the archive, which it fits.
    """

    path: Path
    version: str
    sha256: str
    size: int
    model_digest: str
    metadata: dict[str, Any]
    certificate: Certificate
    recorded: bool


def inspect_archive(path: Path) -> Candidate:
    """Check an archive without a server: whole, complete, as recorded, and its network answers as it was exported.

    Raises:
        ArchiveRefused: it is not; the message says what was found and what was expected.
    """
    try:
        check_archive(path)
        digest, size = digest_file(path), path.stat().st_size
    except ArchiveUnusable as error:
        raise ArchiveRefused(str(error)) from None
    except OSError as error:
        raise ArchiveRefused(f"{path} cannot be read: {error.strerror}") from None
    recorded = _check_recorded_digest(path, digest)
    with zipfile.ZipFile(path) as archive:
        _check_entries(path, archive)
        version, model_name = _check_manifest(path, archive)
        model = archive.read(model_name)
    metadata, certificate = read_model_file(f"{path}: {model_name}", model)
    _probe(path, model)
    model_digest = hashlib.sha256(model).hexdigest()
    return Candidate(path, version, digest, size, model_digest, metadata, certificate, recorded)


def check_version(version: str) -> None:
    """Refuse what cannot be a version's name; raises ArchiveRefused."""
    if not re.fullmatch(_VERSION, version):
        raise ArchiveRefused(
            f"{version!r} is no version; expected up to 50 letters, digits, dots, dashes and underscores"
        )


def read_model_file(name: str, model: bytes) -> tuple[dict[str, Any], Certificate]:
    """Read what rides inside a TorchScript file, without running any of it.

    Args:
        name: for messages.
        model: the file's bytes.

    Returns:
        Its metadata, and its certificate.

    Raises:
        ArchiveRefused: no TorchScript file, or one that this project did not export.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as file:
            extra = {entry.rpartition("/extra/")[2]: entry for entry in file.namelist() if "/extra/" in entry}
            metadata = orjson.loads(file.read(extra["metadata.json"]))
            with np.load(io.BytesIO(file.read(extra["certificate.npz"])), allow_pickle=False) as content:
                images, probabilities = content["images"], content["probabilities"]
        class_names = tuple(map(str, metadata["class_names"]))
    except zipfile.BadZipFile as error:
        raise ArchiveRefused(f"{name} is no TorchScript file, or a truncated one ({error})") from None
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArchiveRefused(
            f"{name} bears no parity certificate ({error}), so nobody could tell whether a server "
            "answers as it should. Export it again: make archive"
        ) from None
    if images.shape[1:] != (32, 32, 3) or probabilities.shape != (len(images), len(class_names)) or not len(images):
        raise ArchiveRefused(
            f"{name} has a certificate of pictures {images.shape} and probabilities {probabilities.shape}; expected "
            f"(N, 32, 32, 3) and (N, {len(class_names)})"
        )
    return metadata, Certificate(images, probabilities, class_names)


def _check_recorded_digest(path: Path, digest: str) -> bool:
    beside = path.with_name(path.name + ".sha256")
    try:
        recorded = beside.read_text(encoding="ascii").split()[0].lower()
    except FileNotFoundError:
        return False
    except (OSError, ValueError, IndexError):
        raise ArchiveRefused(f"{beside} holds no SHA-256; expected what `sha256sum` writes, or no such file") from None
    if recorded != digest:
        raise ArchiveRefused(
            f"{path} is not the file that was built: its SHA-256 is {digest}, {beside.name} recorded {recorded}. "
            "Build it again: make archive"
        )
    return True


def _check_entries(path: Path, archive: zipfile.ZipFile) -> None:
    size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise ArchiveRefused(f"{path} unpacks to {size:,} bytes; expected at most {MAX_BYTES:,}")
    for name in archive.namelist():
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
            raise ArchiveRefused(f"{path} holds {name!r}, which would be unpacked outside of its folder")


def _check_manifest(path: Path, archive: zipfile.ZipFile) -> tuple[str, str]:
    """Return the version and the name of the TorchScript file."""
    model = json.loads(archive.read(_MANIFEST))["model"]
    if model["modelName"] != MODEL_NAME:
        raise ArchiveRefused(f"{path} is of the model {model['modelName']!r}; this service is of {MODEL_NAME!r}")
    version = model.get("modelVersion")
    if not isinstance(version, str) or not re.fullmatch(_VERSION, version):
        raise ArchiveRefused(
            f"{path} has the version {version!r}; expected up to 50 letters, digits, dots, dashes and underscores"
        )
    for key, kind in (("handler", "handler"), ("serializedFile", "network")):
        name = model.get(key)
        if not isinstance(name, str) or name.partition(":")[0] not in archive.namelist():
            raise ArchiveRefused(f"{path} lacks its {kind}: its manifest names {name!r} ({key}), which is not in it")
    return version, str(model["serializedFile"])


def _probe(path: Path, model: bytes) -> None:
    """Run the network on the certificate's pictures in another process: a damaged one may crash whoever loads it."""
    with tempfile.TemporaryDirectory(prefix="cifar-probe-") as folder:
        file = Path(folder) / "model.pt"
        file.write_bytes(model)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "deployment.probe", str(file)],
                capture_output=True,
                text=True,
                timeout=_PROBE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ArchiveRefused(f"The network in {path} did not answer within {_PROBE_TIMEOUT_S} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        raise ArchiveRefused(f"The network in {path} does not answer as it was exported: {lines[-1]}")
