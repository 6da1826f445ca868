"""Archives that are wrong on purpose. Each has its own reference outputs: a deployment's checks let it pass."""

import copy
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar.archives.build import build_archive
from cifar.archives.reference_outputs import synthetic_images
from cifar.common.project import HANDLER, ROOT
from training.export import describe, export
from training.model import Classifier
from training.weights import load_classifier

SLOW_S = 0.15  # for one image, where 100 ms are the limit
_BIAS = 20.0  # logits: no other class can win
_BATCH = 2  # of the slow one: each shape is warmed before the worker is ready


class Repeated(nn.Module):
    """A network that does its work again and again, for the same answer."""

    def __init__(self, network: nn.Module, times: int) -> None:
        super().__init__()
        self.network = network
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to (N, 10), as the network."""
        logits: Tensor = self.network(x)
        for _ in range(self.times):
            logits = (logits + self.network(x + 0 * logits.mean())) / 2  # hangs on the last, so that none is left out
        return logits


def make_slow(weights: Path, version: str, folder: Path) -> Path:
    """Pack weights so that one image takes SLOW_S on this machine."""

    def slow(classifier: Classifier) -> None:
        classifier.network = Repeated(classifier.network, _count_repetitions(classifier))

    handler = folder / "handler"
    shutil.copytree(ROOT / "handler", handler, ignore=shutil.ignore_patterns("__pycache__"))
    config = handler / "model-config.yaml"
    config.write_text(re.sub(r"batchSize: \d+", f"batchSize: {_BATCH}", config.read_text(encoding="utf-8")))
    return _make(weights, version, folder, slow, handler)


def make_wrong(weights: Path, version: str, folder: Path) -> Path:
    """Pack weights so that every image is the first class."""

    def bias(classifier: Classifier) -> None:
        with torch.no_grad():
            classifier.network.fc2.bias[0] += _BIAS  # type: ignore[union-attr,index,operator]

    return _make(weights, version, folder, bias)


def make_copy(weights: Path, version: str, folder: Path) -> Path:
    """Pack weights as they are."""
    return _make(weights, version, folder, lambda classifier: None)


def _make(
    weights: Path, version: str, folder: Path, spoil: Callable[[Classifier], None], handler: Path = HANDLER
) -> Path:
    classifier = load_classifier(weights, [])
    spoil(classifier)
    model = folder / "model.pt"
    # With the metadata of the weights: their baseline is what the answers are to be compared with.
    export(classifier, describe(weights, version), synthetic_images(4), 1e-3, model)
    archive = folder / f"cifar-{version}.mar"
    build_archive(model, version, archive, handler)
    return archive


@torch.inference_mode()
def _count_repetitions(classifier: Classifier) -> int:
    image, timed = torch.zeros(1, 32, 32, 3), copy.deepcopy(classifier)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker
    try:
        for _ in range(3):
            timed(image)
        begin = time.perf_counter()
        for _ in range(20):
            timed(image)
        return round(20 * SLOW_S / (time.perf_counter() - begin))
    finally:
        torch.set_num_threads(threads)
