"""Draws the dashboards of some minutes with deployments, load and bad input, for docs/pictures.

Usage: make archive; make archive VERSION=2.0; make data; python -m benchmarks.dashboards [--minutes N]

A server of its own serves version 1.0, watched by a Prometheus of its own. Clients send test images of CIFAR-10 and,
now and then, bad requests; one of them always asks for version 1.0. In the course of it, version 2.0 is deployed, more
clients send without a pause, most images are corrupted by fog and noise and many requests are bad, and at last 1.0 is
the default again.
"""

import io
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import requests
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.own_prometheus import own_prometheus
from benchmarks.own_server import write_free_config
from cifar.common.console import run_stage
from cifar.common.project import MODEL_STORE, ROOT
from cifar.server.torchserve import TorchServe
from grafana import draw
from training.corruptions import corrupt
from training.data import DATA_FILE, load_dataset
from training.errors import TrainingError

_CLIENTS = 3
_PAUSE_S = 0.15  # mean, between two requests of a client
_BUSY_CLIENTS = 8
_SOME_IMAGES = 2000

Images = NDArray[np.uint8]


@dataclass
class Traffic:
    """What clients send, and may be changed while they do.

    Attributes:
        corrupted: share of the images that are.
        bad: share of the requests that no server could accept.
        unexpected: statuses of answers that should have been others.
    """

    clean: Images
    foggy: Images
    corrupted: float = 0.0
    bad: float = 0.005
    unexpected: list[int] = field(default_factory=list)


def main(
    minutes: Annotated[float, typer.Option(help="how long it takes", min=2)] = 12.0,
    data: Annotated[Path, typer.Option(help="of `make data`")] = DATA_FILE,
    output: Annotated[Path, typer.Option(help="the folder of the screenshots")] = draw.SCREENSHOTS,
) -> None:
    """Play the events, and draw them."""
    images = load_dataset(data).test_images
    clean = images[np.random.default_rng(0).permutation(len(images))[:_SOME_IMAGES]]  # they are sorted by class
    foggy = corrupt(corrupt(clean, "fog", 4, seed=0), "gaussian_noise", 4, seed=0)
    traffic = Traffic(clean, foggy)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        store = folder / "model_store"
        store.mkdir()
        shutil.copy(MODEL_STORE / "cifar-1.0.mar", store)
        server = TorchServe(folder / "run", write_free_config(folder), store)
        server.start()
        try:
            with own_prometheus(folder / "prometheus", server) as prometheus:
                time.sleep(5)  # the first scrape, before the first request: what is counted before it has no rate
                with _clients(server, traffic, [*[""] * _CLIENTS, "/1.0"], _PAUSE_S):
                    _play(server, traffic, 60 * minutes)
                draw.main(prometheus, minutes, output)
        finally:
            server.stop()
    if traffic.unexpected:
        raise TrainingError(f"answers of these statuses were not expected: {traffic.unexpected[:10]}")


def _play(server: TorchServe, traffic: Traffic, duration_s: float) -> None:
    begin = time.monotonic()

    def wait_until(share: float) -> None:
        time.sleep(max(0, begin + share * duration_s - time.monotonic()))

    wait_until(0.25)
    _change(server, "deploy", str(MODEL_STORE / "cifar-2.0.mar"))
    wait_until(0.42)
    with _clients(server, traffic, [""] * _BUSY_CLIENTS, 0):
        wait_until(0.5)
    wait_until(0.6)
    traffic.corrupted, traffic.bad = 0.7, 0.2
    wait_until(0.85)
    _change(server, "rollback")
    traffic.corrupted, traffic.bad = 0.0, 0.005
    wait_until(1)


def _change(server: TorchServe, command: str, *arguments: str) -> None:
    where = ["--config", server.config, "--model-store", server.model_store, "--run-dir", server.run_dir]
    call = [sys.executable, "-m", "cifar.cli.main", command, *arguments, *map(str, where)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(f"cifar {command} failed: {done.stdout}{done.stderr}")


@contextmanager
def _clients(server: TorchServe, traffic: Traffic, versions: list[str], pause_s: float) -> Iterator[None]:
    """Let a client for each of these versions send, from `with` to its end; an empty one asks for the default."""
    end = threading.Event()
    url = f"{server.addresses.inference}/predictions/cifar"
    threads = [
        threading.Thread(target=_send, args=(url + version, traffic, end, pause_s, seed), daemon=True)
        for seed, version in enumerate(versions)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(60)


def _send(url: str, traffic: Traffic, end: threading.Event, pause_s: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    session = requests.Session()
    while not end.wait(generator.exponential(pause_s)):
        if generator.random() < traffic.bad:
            body, kind, expected = _BAD[generator.integers(len(_BAD))]
        else:
            images = traffic.foggy if generator.random() < traffic.corrupted else traffic.clean
            body, kind = _request(images, generator)
            expected = 200
        answer = session.post(url, data=body, headers={"Content-Type": kind}, timeout=60)
        if answer.status_code // 100 != expected // 100:
            traffic.unexpected.append(answer.status_code)


_BAD = (
    (b"short", "application/octet-stream", 400),
    (b'{"image": [1, 2, 3]}', "application/json", 400),
    (b"\x89PNG\r\n\x1a\n of which the rest is missing", "image/png", 400),
)


def _request(images: Images, generator: np.random.Generator) -> tuple[bytes, str]:
    """One image as raw bytes, or as a larger PNG, or a few together."""
    kind = generator.random()
    if kind < 0.2:
        file = io.BytesIO()
        Image.fromarray(images[generator.integers(len(images))]).resize((320, 320)).save(file, "PNG")
        return file.getvalue(), "image/png"
    count = 1 if kind < 0.9 else int(generator.integers(2, 17))
    chosen = images[generator.integers(len(images), size=count)]
    return chosen.tobytes(), "application/octet-stream"


if __name__ == "__main__":
    run_stage(main)
