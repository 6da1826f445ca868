"""Makes an archive the same bytes whenever it is packed of the same files: `python -m training.archive cifar.mar`.

torch-model-archiver writes the time into the manifest, takes over the files' dates, and packs them in whatever order
the disk has them. Without all that, an archive's digest says what is in it.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from training.atomic_write import atomic_write
from training.command import console, run_stage
from training.errors import ExportRefused

_MANIFEST = "MAR-INF/MANIFEST.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold
_MODE = 0o100644 << 16  # a regular file, which its owner may write


def normalise(path: Path) -> None:
    """Write an archive again in its place: entries by name, one date, one mode, and no time in the manifest.

    Args:
        path: what torch-model-archiver made; not in the model store, where TorchServe may see the file that is written.

    Raises:
        ExportRefused: no archive, or a damaged one; it stays as it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in sorted(archive.namelist()) if not name.endswith("/")}
        manifest = json.loads(files[_MANIFEST])
        manifest.pop("createdOn", None)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportRefused(f"{path} is no archive of torch-model-archiver: {error}") from error
    files[_MANIFEST] = json.dumps(manifest, indent=2).encode()
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = _MODE
            # Weights hardly shrink, and zlib's versions differ in what they make of the same bytes.
            archive.writestr(entry, content, zipfile.ZIP_STORED)


def main(path: Annotated[Path, typer.Argument(help="the archive as torch-model-archiver made it")]) -> None:
    """Make an archive reproducible."""
    normalise(path)
    console.print(f"{path}: SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_stage(main)
