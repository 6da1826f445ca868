"""The source `cifar10`: torchvision's download of the original batches, with its checksums."""

import tarfile
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.torchvision_compat import allow_mixed_builds

Parts = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def download_cifar10(path: Path, classes: tuple[str, ...]) -> Parts:
    """Download CIFAR-10 (170 MB) into the folder `path`, unless it is there, and read it.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

    Args:
        path: folder that keeps the download.
        classes: the names expected, in the order of their indices.

    Returns:
        `train` and `test`: images (N, 32, 32, 3) uint8 RGB and labels (N,) int64.

    Raises:
        DataError: torchvision is not installed, no connection, or a checksum that does not hold.
    """
    try:
        allow_mixed_builds()
    except ModuleNotFoundError as error:
        raise DataError(str(error)) from None
    from torchvision.datasets import CIFAR10  # only after allow_mixed_builds

    parts: Parts = {}
    try:
        for name in ("train", "test"):
            dataset = CIFAR10(root=path, train=name == "train", download=True)
            parts[name] = (dataset.data, np.asarray(dataset.targets, dtype=np.int64))
    except (OSError, RuntimeError, EOFError, tarfile.TarError, HTTPException) as error:
        raise DataError(
            f"CIFAR-10 could not be had from {CIFAR10.url} into {path}: {error}. Try again, put the file "
            f"{CIFAR10.filename} there yourself, or use images that you have: prepare.source=folder prepare.path=DIR"
        ) from error
    if tuple(dataset.classes) != classes:
        raise DataError(f"{path} has the classes {dataset.classes}; expected {list(classes)}")
    return parts
