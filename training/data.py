"""The data set: from a download or a folder of images to one checked file of arrays. The stage `prepare`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from cifar.common.console import console, run_stage
from cifar.common.files import atomic_write
from cifar.common.project import class_names
from training.cifar10_download import download_cifar10
from training.errors import DataError, ParameterError
from training.image_folder import read_image_folder
from training.params import check_sections, load_params

DATA_FILE = Path("data/cifar10.npz")

Images = NDArray[np.uint8]  # (N, 32, 32, 3), RGB
Labels = NDArray[np.int64]  # (N,), class indices

_ARRAYS = ("train_images", "train_labels", "validation_images", "validation_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class PrepareParams:
    """The section `prepare` of params.yaml."""

    SECTION: ClassVar[str] = "prepare"

    source: Literal["cifar10", "folder"]
    path: str
    validation_fraction: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ParameterError(
                f"prepare.validation_fraction is {self.validation_fraction}; it must lie between 0 and 1"
            )
        if self.seed < 0:
            raise ParameterError(f"prepare.seed is {self.seed}; expected at least 0")


@dataclass(frozen=True)
class Dataset:
    """Images (N, 32, 32, 3) uint8 RGB, and class indices (N,) int64, in three parts.

    The validation part is for every choice; the test part is for the metric at the end and for nothing else.
    """

    train_images: Images
    train_labels: Labels
    validation_images: Images
    validation_labels: Labels
    test_images: Images
    test_labels: Labels

    @property
    def digest(self) -> str:
        """SHA-256 over all arrays and their shapes: the same images in the same split give the same digest."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            array = getattr(self, name)
            digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def prepare_dataset(params: PrepareParams) -> Dataset:
    """Read the source that `params` names and draw the validation set from its training images.

    Raises:
        DataError: the source is missing, truncated or not CIFAR-10; the message names the file.
    """
    read = {"cifar10": download_cifar10, "folder": read_image_folder}[params.source]
    parts = read(Path(params.path), class_names())
    images, labels = parts["train"]
    validation = draw_validation(labels, params.validation_fraction, params.seed)
    return Dataset(images[~validation], labels[~validation], images[validation], labels[validation], *parts["test"])


def draw_validation(labels: Labels, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw the same fraction of each class.

    Returns:
        (N,) bool, True for a validation image.

    Raises:
        DataError: a class is too small to give an image to either side.
    """
    generator = np.random.default_rng(seed)
    drawn = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = round(fraction * len(members))
        if not 0 < count < len(members):
            raise DataError(
                f"class {label} has {len(members)} training images; {fraction:g} of them leaves a part without any"
            )
        drawn[generator.permutation(members)[:count]] = True
    return drawn


def save_dataset(dataset: Dataset, path: Path = DATA_FILE) -> None:
    """Write the arrays and their digest as one uncompressed `.npz`, whole or not at all."""
    arrays = {name: getattr(dataset, name) for name in _ARRAYS}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, digest=np.array(dataset.digest), **arrays)


def load_dataset(path: Path = DATA_FILE) -> Dataset:
    """Read what `save_dataset` wrote, and check it against its digest.

    Raises:
        DataError: missing, truncated, changed, or not such a file.
    """
    try:
        # Opened here: NumPy leaves a path that it opened itself open when it is no zip file.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            dataset = Dataset(**{name: file[name] for name in _ARRAYS})
            digest = str(file["digest"])
    except FileNotFoundError:
        raise DataError(f"{path} is missing; make it: make data") from None
    except Exception as error:  # damage makes zipfile, zlib and NumPy raise nearly anything
        raise DataError(f"{path} is no prepared data set ({error}); make it again: make data") from None
    if dataset.digest != digest:
        raise DataError(f"{path} holds other images than its digest {digest[:12]} says; make it again: make data")
    return dataset


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="prepare.KEY=VALUE…")] = None,
    output: Annotated[Path, typer.Option(help="the file to write")] = DATA_FILE,
) -> None:
    """Read CIFAR-10 from its source and write it as one file of arrays."""
    check_sections(overrides or [], PrepareParams)
    dataset = prepare_dataset(load_params(PrepareParams, overrides or []))
    save_dataset(dataset, output)
    console.print(_summary(dataset, output))


def _summary(dataset: Dataset, output: Path) -> Table:
    table = Table(title=f"{output}, digest {dataset.digest[:12]}")
    table.add_column("class")
    parts = {"train": dataset.train_labels, "validation": dataset.validation_labels, "test": dataset.test_labels}
    for name in parts:
        table.add_column(name, justify="right")
    for index, name in enumerate(class_names()):
        table.add_row(name, *(f"{np.count_nonzero(labels == index):,}" for labels in parts.values()))
    table.add_section()
    table.add_row("all", *(f"{len(labels):,}" for labels in parts.values()))
    return table


if __name__ == "__main__":
    run_stage(main)
