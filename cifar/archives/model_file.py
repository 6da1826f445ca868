"""Reads what is embedded in a TorchScript file, without running any of it."""

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from cifar.archives.reference_outputs import ReferenceOutputs
from cifar.archives.strict_zip import MAX_FILE, MAX_UNPACKED
from cifar.common.errors import ArchiveRejected
from cifar.common.files import open_regular

METADATA_NAME = "metadata.json"  # what training/export.py embeds: what the file is of,
REFERENCE_OUTPUTS_NAME = "reference_outputs.npz"  # and the arrays of cifar/archives/reference_outputs.py
_OLD_NAME = "certificate.npz"  # of these arrays, in files exported before release 0.2
_MAX_DIRECTORY = 8 << 20  # bytes of the list of entries; of 100,000 tensors
_MAX_METADATA = 4 << 20  # bytes; with a baseline it has 20,000
_MAX_ARRAYS = 64 << 20  # bytes; of 32 images it has 100,000
_MAX_CLASSES = 10_000
_END, _END_64, _LOCATOR_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")


def read_model_file(name: str, path: Path) -> tuple[dict[str, Any], ReferenceOutputs]:
    """Read what is embedded in a TorchScript file, without running any of it.

    Args:
        name: for messages.
        path: the file.

    Returns:
        Its metadata, and its reference outputs.

    Raises:
        ArchiveRejected: no TorchScript file, or one that this project did not export.
    """
    try:
        extra = read_extra_files(path)
        metadata = orjson.loads(extra[METADATA_NAME])
        class_names = tuple(map(str, metadata["class_names"]))
        if len(class_names) > _MAX_CLASSES:
            raise ValueError(f"{len(class_names):,} class names")
        with zipfile.ZipFile(io.BytesIO(extra.get(_OLD_NAME) or extra[REFERENCE_OUTPUTS_NAME])) as arrays:
            images = _read_array(arrays, "images", np.dtype(np.uint8))
            probabilities = _read_array(arrays, "probabilities", np.dtype(np.float32))
    except zipfile.BadZipFile as error:
        raise ArchiveRejected(f"{name} is no TorchScript file, or a truncated one ({error})") from None
    except Exception as error:  # of a file that was made to be misread, the parsers raise nearly anything
        said = " ".join(str(error).split())[:200]
        raise ArchiveRejected(
            f"{name} has no reference outputs embedded ({said}), so that it cannot be checked whether a server "
            "answers as it should. Export it again: make archive"
        ) from None
    if images.shape[1:] != (32, 32, 3) or probabilities.shape != (len(images), len(class_names)) or not len(images):
        raise ArchiveRejected(
            f"{name} has reference outputs of images {images.shape} and probabilities {probabilities.shape}; expected "
            f"(N, 32, 32, 3) and (N, {len(class_names)})"
        )
    return metadata, ReferenceOutputs(images, probabilities, class_names)


def read_extra_files(path: Path) -> dict[str, bytes]:
    """Return what a TorchScript file has besides the network, by name; raises nearly anything for a damaged one."""
    with open_regular(path, MAX_FILE) as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as content:
            entries = content.infolist()
            names = {entry.filename for entry in entries}
            if len(names) != len(entries):
                raise ValueError("two of its entries have one name")
            if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
                raise ValueError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
            [root] = {name.partition("/")[0] for name in names}  # PyTorch has one folder, of any name
            limits = {METADATA_NAME: _MAX_METADATA, REFERENCE_OUTPUTS_NAME: _MAX_ARRAYS, _OLD_NAME: _MAX_ARRAYS}
            return {
                name: _read(content, f"{root}/extra/{name}", limit)
                for name, limit in limits.items()
                if f"{root}/extra/{name}" in names
            }


def _check_directory(file: BinaryIO) -> None:
    """Look how long the list of entries is: zipfile would read all of it. PyTorch writes a second end (ZIP64)."""
    size = file.seek(0, os.SEEK_END)
    tail_size = min(size, _END_64.size + _LOCATOR_64.size + _END.size)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("no end of a zip file where it should be")
    _signature, _disk, _first, _here, count, length, begin, _comment = _END.unpack(tail[-_END.size :])
    if tail[-_END.size - _LOCATOR_64.size :][:4] == b"PK\x06\x07":
        same = tail[:4] == b"PK\x06\x06" and _END_64.unpack(tail[: _END_64.size])[-3:] == (count, length, begin)
        if not same:
            raise ValueError("its two ends, one in the form ZIP64, differ")
    if length > _MAX_DIRECTORY:
        raise ValueError(f"its list of entries has {length:,} bytes; expected at most {_MAX_DIRECTORY:,}")


def _read(content: zipfile.ZipFile, name: str, limit: int) -> bytes:
    size = content.getinfo(name).file_size
    if size > limit:
        raise ValueError(f"{name} has {size:,} bytes; expected at most {limit:,}")
    return content.read(name)


def _read_array(arrays: zipfile.ZipFile, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read one array of an .npz file: np.load would make room for whatever shape its header claims."""
    size = arrays.getinfo(f"{name}.npy").file_size
    if size > _MAX_ARRAYS:
        raise ValueError(f"{name} has {size:,} bytes; expected at most {_MAX_ARRAYS:,}")
    with arrays.open(f"{name}.npy") as file:
        shape, fortran, found = _read_header(file)
        if found != dtype or fortran:
            raise ValueError(f"{name} is of type {found}; expected {dtype}")
        content = np.frombuffer(file.read(), dtype)
    return content.reshape(shape).copy()


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of another format than NumPy's 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, fortran, dtype
