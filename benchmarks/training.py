"""Measures how many images a second training takes, against the plain loop of many tutorials.

Usage: python -m benchmarks.training [--output FILE] [--rounds N] [--images N] [--device cpu|cuda]

The plain loop: a DataLoader over PIL images with torchvision's RandomCrop, RandomHorizontalFlip, ToTensor and
Normalize, batches of 64, Adam, the network in PyTorch's usual order of layers (pool last) and of memory,
`loss.item()` at every step. Both sides train the same layers on the same made images and take turns within one run,
round by round, because times of two runs on a shared machine do not compare. The ratio of each round is taken first,
then median and spread.
"""

import os
import platform
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.machine import processor
from cifar.common.console import run_stage
from cifar.common.files import atomic_write
from cifar.common.project import ROOT
from training.data import Dataset
from training.interrupt import StopSignals
from training.model import ModelParams, build_network
from training.optimization import TrainParams
from training.params import load_params
from training.torchvision_compat import allow_mixed_builds
from training.trainer import Trainer

RESULTS = ROOT / "benchmarks" / "results" / "training.md"
PLAIN_BATCH = 64


@dataclass(frozen=True)
class Row:
    """What was measured of one variant: images a second by round, plain loop and ours."""

    name: str
    plain: list[float]
    ours: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over the plain loop's, a round each, in ascending order."""
        return sorted(ours / plain for ours, plain in zip(self.ours, self.plain, strict=True))


def main(
    output: Annotated[Path, typer.Option(help="the table to write")] = RESULTS,
    rounds: Annotated[int, typer.Option(help="turns of each side", min=3)] = 7,
    images: Annotated[int, typer.Option(help="images that each side trains on in a round", min=1280)] = 5120,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "auto",
) -> None:
    """Time both loops in turns, with the plain loop's images loaded in the process and by worker processes."""
    console = Console()
    labels = np.random.default_rng(0).integers(0, 10, images)
    pictures = np.random.default_rng(1).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    cores = os.cpu_count() or 1
    rows = [
        measure("no workers", pictures, labels, 0, rounds, device, console),
        measure(f"{cores} workers", pictures, labels, cores, rounds, device, console),
    ]
    text = report(rows, images, rounds, device)
    with atomic_write(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def measure(
    name: str,
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    workers: int,
    rounds: int,
    device: str,
    console: Console,
) -> Row:
    """Let both sides train an epoch a round, in turns; the first round warms up and does not count."""
    params = load_params(TrainParams, [f"train.device={device}", f"train.epochs={rounds + 1}"], ROOT / "params.yaml")
    params = replace(params, early_stopping_patience=rounds + 1)
    few = slice(0, 10)  # validation is no part of the time
    dataset = Dataset(pictures, labels, pictures[few], labels[few], pictures[few], labels[few])
    trainer = Trainer(dataset, load_params(ModelParams, (), ROOT / "params.yaml"), params)
    plain = PlainLoop(pictures, labels, workers, trainer.device)
    row = Row(name, [], [])
    for turn in track(range(rounds + 1), name, console=console, transient=True):
        sides = [(plain.run_epoch, row.plain), (lambda: _our_epoch(trainer), row.ours)]
        for run, into in sides if turn % 2 else reversed(sides):
            speed = run()
            if turn:
                into.append(speed)
    return row


class PlainLoop:
    """The loop that tutorials show, written as they write it.

    Args:
        images: (N, 32, 32, 3) uint8.
        labels: (N,).
        workers: processes that load and augment; 0: the training process itself.
        device: where the network lies.
    """

    def __init__(
        self, pictures: NDArray[np.uint8], labels: NDArray[np.int64], workers: int, device: torch.device
    ) -> None:
        allow_mixed_builds()
        from torchvision import transforms

        augmentation = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ]
        )
        self._device = device
        self._loader: Iterable[Any] = DataLoader(
            PictureDataset(pictures, labels, augmentation),
            batch_size=PLAIN_BATCH,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        params = replace(load_params(ModelParams, (), ROOT / "params.yaml"), pool_first=False)
        self._network = build_network(params).to(device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=0.001)

    def run_epoch(self) -> float:
        """Train one epoch; return images a second."""
        self._network.train()
        start, seen, total = time.perf_counter(), 0, 0.0
        for inputs, labels in self._loader:
            inputs, labels = inputs.to(self._device), labels.to(self._device)
            loss = nn.functional.cross_entropy(self._network(inputs), labels)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += loss.item()
            seen += len(labels)
        return seen / (time.perf_counter() - start)


class PictureDataset(torch.utils.data.Dataset[tuple[Any, int]]):
    """Images as PIL images, as torchvision's CIFAR10 gives them."""

    def __init__(self, pictures: NDArray[np.uint8], labels: NDArray[np.int64], augmentation: Any) -> None:
        self._pictures, self._labels, self._augmentation = pictures, labels.tolist(), augmentation

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._augmentation(Image.fromarray(self._pictures[index])), self._labels[index]


def report(rows: list[Row], images: int, rounds: int, device: str) -> str:
    """Return the table as Markdown."""
    used = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    machine = torch.cuda.get_device_name() if used.type == "cuda" else f"{os.cpu_count()} × {processor()}"
    lines = [
        "# Training: images a second",
        "",
        f"{machine}, {torch.get_num_threads()} threads, Python {platform.python_version()}, PyTorch "
        f"{torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. ImprovedCNN of params.yaml, {images:,} made images an "
        f"epoch, {rounds} epochs of each side in turns. Made by `python -m benchmarks.training`.",
        "",
        "| plain loop | plain, median | ours, median | ratio: median (lowest to highest round) |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        ratios = row.ratios
        lines.append(
            f"| {row.name} | {statistics.median(row.plain):,.0f}/s | {statistics.median(row.ours):,.0f}/s "
            f"| **{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def _our_epoch(trainer: Trainer) -> float:
    metrics = trainer.run_epoch(StopSignals())
    if metrics is None:
        raise KeyboardInterrupt
    return metrics["images_per_second"]


if __name__ == "__main__":
    run_stage(main)
