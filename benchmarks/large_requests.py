"""How long single images wait while others send large requests to the same server (make up).

Usage: python -m benchmarks.large_requests [--url URL] [--large N] [--rounds N]

Each round measures one client that sends single raw images, alone and then beside `--large` clients that send 256
images a request, without pause. The ratio is taken round by round.
"""

import threading
import time
from statistics import median, quantiles
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from cifar.cli.options import UrlOption
from cifar.client.inference import InferenceClient
from cifar.common.console import run_stage


def main(
    url: UrlOption,
    large: Annotated[int, typer.Option(help="clients that send 256 images a request")] = 4,
    rounds: Annotated[int, typer.Option(help="pairs of measurements")] = 5,
    seconds: Annotated[float, typer.Option(help="length of each measurement")] = 4.0,
) -> None:
    """Measure the wait of a single image, alone and beside large requests."""
    table = Table(
        "round", "alone p50 ms", "beside p50 ms", "alone p99 ms", "beside p99 ms", "beside max ms", "p50 ratio"
    )
    ratios = []
    for number in range(1, rounds + 1):
        alone = measure_single(url, seconds)
        with LargeLoad(url, large):
            beside = measure_single(url, seconds)
        ratios.append(median(beside) / median(alone))
        p99 = [f"{quantiles(waits, n=100, method='inclusive')[98] * 1000:.1f}" for waits in (alone, beside)]
        p50 = [f"{median(waits) * 1000:.1f}" for waits in (alone, beside)]
        table.add_row(str(number), *p50, *p99, f"{max(beside) * 1000:.0f}", f"{ratios[-1]:.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"{large} clients of 256 images: a single image waits {median(ratios):.1f} times as long "
        f"({min(ratios):.1f} to {max(ratios):.1f}, {rounds} rounds)",
        highlight=False,
        soft_wrap=True,
    )


def measure_single(url: str, seconds: float) -> list[float]:
    """Send single images one after the other; return the wait for each answer, in seconds."""
    image = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    waits = []
    with InferenceClient(url) as client:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            client.predict(image)
            waits.append(time.perf_counter() - start)
    return waits


class LargeLoad:
    """While entered, `clients` threads send 256 images a request, without pause."""

    def __init__(self, url: str, clients: int) -> None:
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()
        time.sleep(0.5)  # until the queue is as long as it gets

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        images = np.zeros((256, 32, 32, 3), dtype=np.uint8)
        with InferenceClient(self._url) as client:
            while not self._stop.is_set():
                client.predict(images)


if __name__ == "__main__":
    run_stage(main)
