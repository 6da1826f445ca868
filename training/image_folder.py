"""The source `folder`: images in `train/<class>/` and `test/<class>/`, as a tree or as a tar of one."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cifar.common.console import console
from cifar.common.image_files import MAX_FILE_BYTES, UnreadableImage, decode_image_file
from training.errors import DataError

Parts = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def read_image_folder(path: Path, classes: tuple[str, ...]) -> Parts:
    """Read a tree of image files, or a tar of one (plain, gz, bz2 or xz; never unpacked to disk).

    Pixels are those that the server sees when the file is sent to it: sizes other than 32×32 are resized by the same
    code. Hidden files, and files beside `train` and `test`, are passed over. The order is that of the sorted names, so
    a tree and its tar give the same arrays.

    Args:
        path: the folder that has `train` and `test`, or the archive.
        classes: the names of the class folders, in the order of their indices.

    Returns:
        `train` and `test`: images (N, 32, 32, 3) uint8 RGB and labels (N,) int64.

    Raises:
        DataError: missing or truncated source, a missing or unknown class, a file that is no image, a path that
            climbs out of the archive, the same image twice; the message names the file.
    """
    if path.is_dir():
        files = _walk_folder(path)
    elif path.is_file():
        files = _walk_tar(path)
    else:
        raise DataError(f"{path} is missing; expected a folder with train/<class>/ and test/<class>/, or a tar of one")

    images: dict[str, dict[tuple[str, str], NDArray[np.uint8]]] = {"train": {}, "test": {}}
    for name, content in files:
        part, label, file = _split_name(name, classes, path)
        if (label, file) in images[part]:
            raise DataError(f"{path}: {part}/{label}/{file} is there twice; the second is {name!r}")
        images[part][label, file] = _decode(content, f"{path}/{name}")
    return {part: _stack(found, classes, f"{path}: {part}") for part, found in images.items()}


def _walk_folder(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name below `root` and the content of each image."""
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise DataError(f"{root / part} is missing; expected folders train/<class>/ and test/<class>/ in {root}")
    files = sorted(file for part in ("train", "test") for file in (root / part).rglob("*") if file.is_file())
    with _progress() as progress:
        for file in progress.track(files, description="reading images"):
            if not file.name.startswith("."):
                name = file.relative_to(root).as_posix()
                _check_size(file.stat().st_size, f"{root}/{name}")
                yield name, file.read_bytes()


def _walk_tar(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each image, in the archive's order, checking every member's path."""
    with _progress() as progress:
        # The number of members is known only at the end; how much of the archive was read is known at once.
        task = progress.add_task("reading archive", total=archive.stat().st_size)
        try:
            with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
                for member in tar:
                    progress.update(task, completed=raw.tell())
                    content = _read_member(tar, member, archive)
                    if content is not None:
                        yield member.name, content
                _check_end(tar, archive)
        except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            raise DataError(f"{archive} is truncated, or no tar of images: {error}") from error


def _check_end(tar: tarfile.TarFile, archive: Path) -> None:
    """Demand the block of zeros that ends an archive: tarfile takes one that was cut between two members for whole."""
    stream = tar.fileobj
    if stream is not None:
        stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{archive} is truncated or damaged at byte {tar.offset:,} of the unpacked archive")


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path) -> bytes | None:
    """Return an image's bytes; None for a folder, a hidden file or one beside `train` and `test`."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"{archive}: the path {member.name!r} climbs out of the archive; nothing was read from it")
    if member.isdir() or name.name.startswith(".") or not {"train", "test"}.intersection(name.parts[:-1]):
        return None
    _check_size(member.size, f"{archive}: {member.name!r}")
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None:
        raise DataError(f"{archive}: {member.name!r} is a link or a device; expected images only")
    content = stream.read()
    if len(content) != member.size:
        raise DataError(f"{archive} is truncated in {member.name!r}: {len(content)} of {member.size} bytes")
    return content


def _check_size(size: int, name: str) -> None:
    """Reject before anything is read: a sparse file may claim to have terabytes."""
    if size > MAX_FILE_BYTES:
        raise DataError(f"{name} has {size:,} bytes, expected at most {MAX_FILE_BYTES:,} for an image; reduce it first")


def _split_name(name: str, classes: tuple[str, ...], source: Path) -> tuple[str, str, str]:
    """`train/cat/0001.jpg`, below whatever folders, to its three parts."""
    parts = PurePosixPath(name).parts[-3:]
    if len(parts) < 3 or parts[0] not in ("train", "test"):
        raise DataError(f"{source}: {name!r} is not of the form train/<class>/<image> or test/<class>/<image>")
    if parts[1] not in classes:
        raise DataError(f"{source}: {name!r} is of the class {parts[1]!r}; known: {', '.join(classes)}")
    return parts[0], parts[1], parts[2]


def _decode(content: bytes, name: str) -> NDArray[np.uint8]:
    try:
        return decode_image_file(content)
    except UnreadableImage as error:
        raise DataError(f"{name}: {error}") from error


def _stack(
    found: dict[tuple[str, str], NDArray[np.uint8]], classes: tuple[str, ...], where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    present = {label for label, _ in found}
    missing = [name for name in classes if name not in present]
    if missing:
        raise DataError(f"{where} has no image of {', '.join(missing)}; each of the {len(classes)} classes needs some")
    keys = sorted(found, key=lambda key: (classes.index(key[0]), key[1]))
    labels = np.array([classes.index(label) for label, _ in keys], dtype=np.int64)
    return np.stack([found[key] for key in keys]), labels


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
