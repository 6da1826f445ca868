"""The figures of an evaluation as tables, which DVC draws and compares between experiments."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.common.files import atomic_write
from cifar.common.project import class_names


def write_confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], path: Path) -> None:
    """Write `actual,predicted`: one row an image, in the order of the test images, as DVC's template counts them.

    Args:
        labels: (N,), true class indices.
        predicted: (N,), class indices.
        path: the file.
    """
    names = class_names()
    rows = ((names[label], names[guess]) for label, guess in zip(labels, predicted, strict=True))
    _write(("actual", "predicted"), rows, path)


def write_reliability(evaluation: Mapping[str, Any], path: Path) -> None:
    """Write `confidence,accuracy,images`: one row an interval of confidence that has images."""
    header = ("confidence", "accuracy", "images")
    _write(header, ([part[key] for key in header] for part in evaluation["reliability"] if part["images"]), path)


def write_corruptions(evaluation: Mapping[str, Any], path: Path) -> None:
    """Write `corruption,strength,accuracy`: one row each pair of the first two."""
    rows = (
        (name, strength, accuracy)
        for name, accuracies in evaluation["corruptions"].items()
        for strength, accuracy in enumerate(accuracies, start=1)
    )
    _write(("corruption", "strength", "accuracy"), rows, path)


def _write(header: tuple[str, ...], rows: Iterable[Iterable[object]], path: Path) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
