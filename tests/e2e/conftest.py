"""One real TorchServe for all tests of this folder, on free ports, with a real archive built by the plain commands."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.own_prometheus import own_prometheus
from cifar.archives.reference_outputs import synthetic_images
from cifar.common.files import digest_file
from cifar.common.project import class_names
from cifar.server.torchserve import TorchServe
from grafana.prometheus import Prometheus
from tests.support.programs import need
from tests.support.service import Service, build_archive, write_config
from tests.support.tiny import copy_handler, tiny_archive
from training.baseline import measure_baseline
from training.evaluate import write_baseline
from training.model import ModelParams, build_classifier, predict_probabilities
from training.weights import save_weights


@pytest.fixture(scope="session")
def classifier():
    """The network that is served: random weights, so that nothing here depends on what was trained."""
    torch.manual_seed(7)
    return build_classifier(ModelParams()).eval()


@pytest.fixture(scope="session")
def archive(classifier, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    weights = folder / "best_cnn_model.pth"
    save_weights(classifier.network.state_dict(), weights)
    images = synthetic_images()
    baseline = measure_baseline(images, predict_probabilities(classifier, images), class_names())
    write_baseline(baseline, weights, digest_file(weights), 1.0)
    return build_archive(weights, "1.0", folder)


@pytest.fixture(scope="session")
def quick_archive(tmp_path_factory) -> Path:
    """Version 1.0 with the same handler and two workers, but a tiny network and small batches: ready in seconds."""
    folder = tmp_path_factory.mktemp("quick")
    return tiny_archive(folder / "archive", "1.0", 7, copy_handler(folder / "handler", workers=2))


@pytest.fixture(scope="session")
def torchserve(archive, tmp_path_factory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("torchserve")
    store = folder / "model_store"
    store.mkdir()
    shutil.copy(archive, store)
    server = TorchServe(folder / "run", write_config(folder), store)
    server.start()
    try:
        yield Service(server)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def prometheus(torchserve, tmp_path_factory) -> Iterator[Prometheus]:
    """A real Prometheus beside that server."""
    need("prometheus")
    with own_prometheus(tmp_path_factory.mktemp("prometheus"), torchserve.server) as url:
        yield Prometheus(url)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Sixteen images (16, 32, 32, 3) uint8 that differ."""
    return np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
