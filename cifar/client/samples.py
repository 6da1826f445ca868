"""The ten images that `cifar predict` sends when it is given none: from the test set, or drawn.

The test set is used where `make data` has already put it. It is never fetched unasked: the download is 170 MB, nothing
that `make up` may start by itself. Until then there is a drawing of each class, in drawings/.
"""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from cifar.client.image_inputs import ImageArray
from cifar.common.errors import InputUnreadable
from cifar.common.project import ROOT, check_checkout, class_names

_DRAWINGS = Path(__file__).with_name("drawings")
TEST_SET_FILE = ROOT / "data" / "cifar10.npz"

DRAWN_NOTE = "These ten are drawings, not photographs. For images of the test set run `make data` (a 170 MB download)."


class SampleSource(StrEnum):
    """Where the ten images come from; `auto` is the test set if it is there, else drawings."""

    AUTO = "auto"
    TEST_SET = "test-set"
    DRAWN = "drawn"


@dataclass(frozen=True)
class Samples:
    """Ten images, one a class, and what their viewer must know about them (None: nothing)."""

    pixels: ImageArray
    note: str | None


def choose_samples(source: SampleSource, test_set_file: Path = TEST_SET_FILE) -> Samples:
    """Return ten images; `test-set` makes the test set first where it is missing.

    Raises:
        InputUnreadable: the test set was asked for and cannot be made or read.
    """
    if source is SampleSource.TEST_SET and not test_set_file.exists():
        prepare_test_set(test_set_file)
    if source is SampleSource.DRAWN or not test_set_file.exists():
        return Samples(read_drawings(), DRAWN_NOTE)
    return Samples(read_test_set(test_set_file), None)


def read_drawings() -> ImageArray:
    """Return ten drawings that belong to the package, one a class, named `drawing (truck)`."""
    images = []
    for name in class_names():
        with Image.open(_DRAWINGS / f"{name}.png") as drawing:
            images.append(np.asarray(drawing))
    return ImageArray(tuple(f"drawing ({name})" for name in class_names()), np.stack(images))


def prepare_test_set(test_set_file: Path = TEST_SET_FILE) -> None:
    """Run `python -m training.data`, which downloads CIFAR-10 and writes `test_set_file`.

    Its output goes to our standard error as it comes: standard output may be JSON.

    Raises:
        InputUnreadable: it failed, or wrote no such file.
    """
    check_checkout("Making the test set")
    stderr = 2
    finished = subprocess.run([sys.executable, "-m", "training.data"], cwd=ROOT, stdout=stderr, check=False)
    if finished.returncode != 0 or not test_set_file.exists():
        raise InputUnreadable(
            f"The test set could not be made (`python -m training.data` ended with {finished.returncode}; its output "
            "stands above). `make data` makes it; what that needs, `pip install -e .[training]` installs. "
            "`--samples drawn` works without it."
        )


def read_test_set(path: Path) -> ImageArray:
    """Return the first image of each class, named by its place: `test[17] (truck)`.

    Args:
        path: an .npz with `test_images` uint8 (N, 32, 32, 3) and `test_labels` (N,).

    Raises:
        InputUnreadable: damaged, or from a version that wrote something else.
    """
    try:
        # Opened here, because np.load forgets to close a file that is no zip archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = archive["test_images"], archive["test_labels"]
        places = [int(np.flatnonzero(labels == label)[0]) for label in range(len(class_names()))]
    except (OSError, ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise InputUnreadable(f"{path}: not a whole test set ({error}); delete it and run `make data`") from error
    names = tuple(f"test[{place}] ({class_names()[label]})" for label, place in enumerate(places))
    return ImageArray(names, images[places])
