"""The metrics of an evaluation as plots (PNG) and as tables (CSV, which DVC draws and compares). Needs matplotlib.

All but the mistakes are drawn from the content of `evaluation.json`, so that they can be drawn again wherever it is.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from cifar.common.files import atomic_write
from cifar.common.project import class_names

MISTAKES = 24  # images in the gallery
_GALLERY_COLUMNS = 6

_BLUE, _LIGHT_BLUE, _RED, _GREY = "#1f6fb2", "#a9cbe8", "#d1495b", "#8a8f98"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def write_plots(
    evaluation: Mapping[str, Any],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    folder: Path,
) -> None:
    """Write all plots and tables of an evaluation.

    Args:
        evaluation: the content of `evaluation.json`.
        images: (N, 32, 32, 3), the test images.
        labels: (N,), true class indices.
        probabilities: (N, 10).
        folder: for the files.
    """
    write_confusion(labels, probabilities.argmax(axis=1), folder / "confusion.csv")
    write_reliability(evaluation, folder / "reliability.csv")
    write_corruptions(evaluation, folder / "corruptions.csv")
    draw_confusion(evaluation, folder / "confusion.png")
    draw_reliability(evaluation, folder / "reliability.png")
    draw_corruptions(evaluation, folder / "corruptions.png")
    draw_mistakes(images, labels, probabilities, folder / "mistakes.png")


def draw_confusion(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw what the images of each class are taken for, from the content of `evaluation.json`, as PNG."""
    names = list(evaluation["classes"])
    counts = np.array(evaluation["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with _drawing(path, 5.6, 5.4) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))  # the root: mistakes are few, and of interest
        for (row, column), share in np.ndenumerate(shares):
            if percent := round(100 * share):
                colour = "white" if share > 0.35 else "black"
                axes.text(column, row, str(percent), ha="center", va="center", color=colour)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted class", ylabel="true class", title="Images of each class by predicted class, %")


def draw_reliability(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw how often a confidence is right, from the content of `evaluation.json`, as PNG."""
    bins = evaluation["reliability"]
    width = 1 / len(bins)
    edges = np.arange(len(bins)) * width
    filled = [(edge, part) for edge, part in zip(edges, bins, strict=True) if part["images"]]
    left = [edge for edge, _ in filled]
    confidence, accuracy, images = (
        np.array([part[key] for _, part in filled]) for key in ("confidence", "accuracy", "images")
    )
    with _drawing(path, 4.8, 5.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        bars = {"width": width, "align": "edge", "edgecolor": "white", "linewidth": 0.8}
        upper.bar(left, accuracy, color=_LIGHT_BLUE, label="accuracy", **bars)
        upper.bar(
            left, confidence - accuracy, bottom=accuracy, color=_RED, alpha=0.6, label="gap to confidence", **bars
        )
        upper.plot((0, 1), (0, 1), "--", color=_GREY, linewidth=1, label="perfectly calibrated")
        upper.legend(frameon=False, loc="upper left")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        lower.bar(left, images / images.sum(), color=_GREY, **bars)
        lower.set(xlabel="confidence", ylabel="images")
        for axis in (upper.xaxis, upper.yaxis, lower.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        before, after = evaluation["calibration_error_before"], evaluation["calibration_error"]
        temperature = evaluation["temperature"]
        upper.set_title(
            f"Calibration error {before:.2%} before, {after:.2%} with temperature {temperature:.2f}", fontsize=9
        )


def draw_corruptions(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw the accuracy on corrupted images by severity, from the content of `evaluation.json`, as PNG."""
    corruptions = evaluation["corruptions"]
    with _drawing(path, 9.0, 4.2) as figure:
        panels = figure.subplots(2, 5, sharex=True, sharey=True)
        for axes, (name, accuracies) in zip(panels.flat, corruptions.items(), strict=True):
            severities = range(1, len(accuracies) + 1)
            for others in corruptions.values():
                axes.plot(severities, others, color=_GREY, alpha=0.25, linewidth=0.8)
            axes.axhline(evaluation["accuracy"], color=_GREY, linestyle="--", linewidth=1)
            axes.plot(severities, accuracies, "o-", color=_BLUE, markersize=4)
            axes.set(title=name.replace("_", " "), xticks=severities, ylim=(0, 1))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.supxlabel("severity", fontsize=9)
        figure.supylabel("accuracy", fontsize=9)
        clean, mean = evaluation["accuracy"], evaluation["corrupted_accuracy"]
        figure.suptitle(
            f"Accuracy on corrupted images: {mean:.1%} in the mean, {clean:.1%} without (dashed)", fontsize=10
        )


def draw_mistakes(
    images: NDArray[np.uint8], labels: NDArray[np.int64], probabilities: NDArray[np.float32], path: Path
) -> None:
    """Draw the MISTAKES most confident mistakes, the most confident first, as PNG.

    It shows images of the data set, so it does not belong into the repository.

    Args:
        images: (N, 32, 32, 3).
        labels: (N,), true class indices.
        probabilities: (N, 10).
        path: the file.
    """
    names = class_names()
    predicted, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidences[wrong], kind="stable")][:MISTAKES]
    with _drawing(path, 9.0, 7.6) as figure:
        figure.suptitle(f"The {len(worst)} most confident of {len(wrong):,} mistakes: true → predicted", fontsize=10)
        cells = figure.subplots(MISTAKES // _GALLERY_COLUMNS, _GALLERY_COLUMNS).ravel()
        for axes in cells:
            axes.set_axis_off()
        for axes, index in zip(cells, worst, strict=False):
            axes.imshow(images[index], interpolation="nearest")
            axes.set_title(f"{names[labels[index]]} → {names[predicted[index]]}\n{confidences[index]:.1%}", fontsize=8)


@contextmanager
def _drawing(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Give a figure of a size in inches, and write it when the block ends well, whole or not at all.

    A Figure of its own, without pyplot, is drawn by Agg and forgotten: no window, no state, no display.
    """
    with rc_context(_STYLE), atomic_write(path) as temporary:
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        # Without matplotlib's version in it, the same figures give the same file.
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None}, pil_kwargs={"optimize": True})


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
    """Write `corruption,severity,accuracy`: one row each pair of the first two."""
    rows = (
        (name, severity, accuracy)
        for name, accuracies in evaluation["corruptions"].items()
        for severity, accuracy in enumerate(accuracies, start=1)
    )
    _write(("corruption", "severity", "accuracy"), rows, path)


def _write(header: tuple[str, ...], rows: Iterable[Iterable[object]], path: Path) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
