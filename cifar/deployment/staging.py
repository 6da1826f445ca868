"""A copy of an archive, made once and for all: what is checked, what is registered and what stays are the same bytes.

It lies hidden in the model store, in a folder that only this user can enter; moving it to its place is a rename.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar.archives.archive import MAX_DIGEST_FILE, digest_path, record_digest, signature_path
from cifar.archives.inspection import Candidate
from cifar.archives.strict_zip import MAX_FILE
from cifar.common.errors import ArchiveRejected, DeploymentFailed
from cifar.common.files import open_regular, read_umask, sync_folder

_PREFIX = ".staging-"  # hidden: TorchServe and the other commands pass over it
_MAX_SIGNATURE = 1 << 20  # bytes; ours have 1,200
_CHUNK = 1 << 20


@contextmanager
def staged(archive: Path, store: Path) -> Iterator[Path]:
    """Copy an archive into a model store, with its signature and its digest if they lie beside it.

    Args:
        archive: a regular file, or a link to one.
        store: where the copy lies until the block ends; whatever is left of it then is removed.

    Raises:
        ArchiveRejected: it is missing, unreadable, too large or no regular file.
        DeploymentFailed: the store cannot be written, or is full.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        remove_leftovers(store)
        folder = Path(tempfile.mkdtemp(dir=store, prefix=_PREFIX))  # its mode keeps others out
    except OSError as error:
        raise DeploymentFailed(f"{store} cannot be written: {error.strerror}") from error
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        copy = folder / archive.name
        _copy(archive, copy, MAX_FILE, store)
        for beside, limit in ((signature_path(archive), _MAX_SIGNATURE), (digest_path(archive), MAX_DIGEST_FILE)):
            if beside.exists():
                _copy(beside, folder / beside.name, limit, store)
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def place(candidate: Candidate, archive: Path) -> None:
    """Move a checked copy to where it is served from, with its digest and its signature beside it.

    What lies there is replaced, whole. An archive that was put there without a digest stays without one; a signature
    that lies there stays where the copy has none.

    Raises:
        DeploymentFailed: the store cannot be written.
    """
    signature, there = signature_path(candidate.path), signature_path(archive)
    try:
        if not archive.exists() or digest_path(archive).exists():
            record_digest(archive, candidate.sha256)
        if signature.exists():
            signature.replace(there)
        elif not archive.exists():
            there.unlink(missing_ok=True)  # of something else
        candidate.path.replace(archive)
        sync_folder(archive.parent)
    except OSError as error:
        free = shutil.disk_usage(archive.parent).free
        raise DeploymentFailed(
            f"{archive} cannot be written: {error.strerror}. It needs {candidate.size:,} bytes, {free:,} are free"
        ) from error


def remove_leftovers(store: Path) -> None:
    """Remove copies that killed processes have left; those of running ones are locked."""
    for folder in store.glob(f"{_PREFIX}*"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:  # just gone, or not ours
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(handle)


def _copy(source: Path, target: Path, limit: int, store: Path) -> None:
    try:
        file = open_regular(source, limit)
    except FileNotFoundError:
        raise ArchiveRejected(f"{source} is missing; build it: make archive") from None
    except OSError as error:
        raise ArchiveRejected(f"{source} cannot be read: {error.strerror}. An archive is a regular file") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        left = limit
        try:
            with target.open("xb") as copy:
                while chunk := file.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:  # it has grown meanwhile
                        raise ArchiveRejected(f"{source} has more than {limit:,} bytes")
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
            target.chmod(0o666 & ~read_umask())  # TorchServe may run as another user
        except OSError as error:
            free = shutil.disk_usage(store).free
            raise DeploymentFailed(
                f"{source} cannot be copied into {store}: {error.strerror}. It needs {size:,} bytes, {free:,} are free"
            ) from error
