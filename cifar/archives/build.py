"""Builds an archive with torch-model-archiver: the same bytes whenever it is built of the same files.

torch-model-archiver writes the time into the manifest, takes over the files' dates, and packs them in whatever order
the disk has them. Without all that, an archive's digest says what is in it.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import orjson

from cifar.archives.archive import MANIFEST, MAX_MANIFEST, Archive, open_archive, record_digest, signature_path
from cifar.archives.signing import SIGNING_KEY, sign_archive, signing_key
from cifar.common.errors import ArchiveRejected, ArchiveUnusable, SignatureRejected
from cifar.common.files import atomic_write, digest_file
from cifar.common.project import HANDLER, MODEL_NAME

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold
_MODE = 0o100644 << 16  # a regular file, which its owner may write


def build_archive(
    model: Path, version: str, output: Path, handler: Path = HANDLER, accept: Callable[[str], None] | None = None
) -> str:
    """Pack a TorchScript file with a handler, as `normalise` writes it; return the archive's SHA-256.

    Args:
        model: the TorchScript file.
        version: for the manifest.
        output: where the archive is to be.
        handler: a folder with cifar_handler.py, what it imports, and model-config.yaml; by default the checkout's.
        accept: as of normalise.

    Raises:
        ArchiveRejected: torch-model-archiver cannot pack it; or as of normalise.
    """
    with tempfile.TemporaryDirectory(prefix="cifar-archive-") as folder:
        command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--force", "--model-name", MODEL_NAME]
        command += ["--version", version, "--serialized-file", str(model)]
        command += ["--handler", str(handler / "cifar_handler.py"), "--extra-files", f"{handler}/*.py,{handler}/*.json"]
        command += ["--config-file", str(handler / "model-config.yaml"), "--export-path", folder]
        # The archiver works in the folder $TMPDIR/cifar, and deletes first what it finds there.
        environment = os.environ | {"TMPDIR": folder}
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise ArchiveRejected(f"torch-model-archiver could not pack {model.name}: {said}")
        return normalise(Path(folder) / f"{MODEL_NAME}.mar", output, accept=accept)


def normalise(
    source: Path, output: Path, version: str | None = None, accept: Callable[[str], None] | None = None
) -> str:
    """Write an archive again: entries by name, one date, one mode, and no time in the manifest.

    Beside the output comes `<output>.sha256`, in the form that `sha256sum --check` reads; and, where the environment
    variable CIFAR_SIGNING_KEY names a private key, the signature `<output>.sig`.

    Args:
        source: what torch-model-archiver made.
        output: where it is to be served from; replaced whole, so TorchServe may be reading there. Where that is a
            model store, the caller holds its lock.
        version: the version to put into the manifest; None leaves the one that is there.
        accept: called with the SHA-256 before anything is replaced; what it raises leaves the output as it is.

    Returns:
        The output's SHA-256, in hexadecimal digits.

    Raises:
        ArchiveRejected: no archive, or a damaged one; or it cannot be signed. The output stays as it is.
    """
    try:
        with open_archive(source) as archive, atomic_write(output) as temporary:
            _write(archive, temporary, version)
            digest = digest_file(temporary)
            if accept is not None:
                accept(digest)
            # First: killed in between, an archive is left that does not fit its digest, which is rejected, not served.
            record_digest(output, digest)
            _sign(temporary, signature_path(output))
    except (ArchiveUnusable, RecursionError) as error:  # a manifest that is nested too deeply to be written
        raise ArchiveRejected(f"{source} is no archive of torch-model-archiver: {error}") from error
    return digest


def _write(archive: Archive, output: Path, version: str | None) -> None:
    document = orjson.loads(archive.zip.read(MANIFEST, MAX_MANIFEST))
    document.pop("createdOn", None)
    if version is not None:
        document["model"]["modelVersion"] = version
    manifest = json.dumps(document, indent=2).encode()
    with zipfile.ZipFile(output, "w") as packed:
        for name in sorted(archive.zip.names):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = _MODE
            # Weights hardly shrink, and zlib's versions differ in what they make of the same bytes.
            entry.compress_type = zipfile.ZIP_STORED
            entry.file_size = len(manifest) if name == MANIFEST else archive.zip.size(name)
            with packed.open(entry, "w") as place:
                for chunk in (manifest,) if name == MANIFEST else archive.zip.chunks(name):
                    place.write(chunk)


def _sign(archive: Path, signature: Path) -> None:
    """Put the signature where it belongs; without a key, one of older content goes."""
    try:
        key = signing_key()
        if key is None:
            signature.unlink(missing_ok=True)
        else:
            sign_archive(archive, key).replace(signature)
    except SignatureRejected as error:
        raise SignatureRejected(f"{error} ({SIGNING_KEY})") from error
