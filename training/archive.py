"""Makes an archive the same bytes whenever it is packed of the same files, and records its digest.

torch-model-archiver writes the time into the manifest, takes over the files' dates, and packs them in whatever order
the disk has them. Without all that, an archive's digest says what is in it.
"""

import json
import zipfile
from pathlib import Path
from typing import Annotated

import orjson
import typer

from deployment.errors import SignatureRefused
from deployment.signing import SIGNING_KEY, sign_archive, signature_path, signing_key
from launcher.archives import MANIFEST, MAX_MANIFEST, Archive, open_archive
from launcher.errors import ArchiveUnusable, ServingUnusable
from launcher.serving import SERVING_NAME, read_serving, store_lock
from training.atomic_write import atomic_write
from training.command import console, run_stage
from training.digest import digest_file
from training.errors import ExportRefused

DIGEST_SUFFIX = ".sha256"  # of the file beside an archive
MAX_DIGEST_FILE = 1 << 16  # bytes of that; sha256sum writes 100

_LOCK_TIMEOUT_S = 300.0  # longer than a deployment takes
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold
_MODE = 0o100644 << 16  # a regular file, which its owner may write


def normalise(source: Path, output: Path, version: str | None = None) -> str:
    """Write an archive again: entries by name, one date, one mode, and no time in the manifest.

    Beside the output comes `<output>.sha256`, in the form that `sha256sum --check` reads; and, where the environment
    variable CIFAR_SIGNING_KEY names a private key, the signature `<output>.sig`.

    Args:
        source: what torch-model-archiver made.
        output: where it is to be served from; replaced whole, so TorchServe may be reading there. Where that is a
            model store, the caller holds its lock.
        version: the version to put into the manifest; None leaves the one that is there.

    Returns:
        The output's SHA-256, in hexadecimal digits.

    Raises:
        ExportRefused: no archive, or a damaged one; the output is deployed, with other content; or it cannot be signed.
            The output stays as it is.
    """
    try:
        with open_archive(source) as archive, atomic_write(output) as temporary:
            _write(archive, temporary, version)
            digest = digest_file(temporary)
            _refuse_to_replace_deployed(output, digest)
            # First: killed in between, an archive is left that does not fit its digest, which is refused, not served.
            record_digest(output, digest)
            _sign(temporary, signature_path(output))
    except (ArchiveUnusable, RecursionError) as error:  # a manifest that is nested too deeply to be written
        raise ExportRefused(f"{source} is no archive of torch-model-archiver: {error}") from error
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
    except SignatureRefused as error:
        raise ExportRefused(f"{error} ({SIGNING_KEY})") from error


def record_digest(archive: Path, digest: str) -> None:
    """Write an archive's SHA-256 beside it, in the form that `sha256sum --check` reads."""
    with atomic_write(archive.with_name(archive.name + DIGEST_SUFFIX)) as recorded:
        recorded.write_text(f"{digest}  {archive.name}\n", encoding="ascii")


def _refuse_to_replace_deployed(output: Path, digest: str) -> None:
    """What was deployed must be there when the server starts again, byte for byte."""
    try:
        serving = read_serving(output.parent)
    except ServingUnusable as error:
        raise ExportRefused(str(error)) from error
    for served in (*serving.versions, *serving.history) if serving else ():
        if served.archive == output.name and served.sha256 != digest:
            raise ExportRefused(
                f"{output} was deployed as version {served.version}, and what was built now differs from it. Build it "
                f"under another version (make archive VERSION=…), or forget what was deployed: rm {output.parent}/"
                f"{SERVING_NAME}"
            )


def main(
    source: Annotated[Path, typer.Argument(help="the archive as torch-model-archiver made it")],
    output: Annotated[Path, typer.Argument(help="the archive to write, such as model_store/cifar-1.0.mar")],
) -> None:
    """Make an archive reproducible, and record its digest beside it."""
    # From the look at what is deployed until the file is there, nothing may be deployed.
    with store_lock(output.parent, _LOCK_TIMEOUT_S) as mine:
        if not mine:
            raise ExportRefused(f"Another process is changing what is served from {output.parent}; wait for its end")
        digest = normalise(source, output)
    console.print(f"{output}: SHA-256 {digest}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_stage(main)
