"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move what was written there to `path` when the block ends well.

    The folder is made when it is missing. When the block raises, the temporary file is removed and `path` is as before.

    Raises:
        OSError: the folder cannot be written, or the disk is full; it names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files for the owner only; a result has the mode that the user's umask gives.
        temporary.chmod(0o666 & ~read_umask())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A full disk is told when bytes are written, and then without the file's name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` that a process left which was killed while it wrote; nobody may write now."""
    for leftover in path.parent.glob(f".{path.name}.*{path.suffix}"):
        leftover.unlink(missing_ok=True)


def read_umask() -> int:
    """Return which bits of a mode this user takes away from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
