"""A Prometheus beside a benchmark's own server, with the project's configuration and rules, that looks every second."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.own_server import find_free_port
from launcher.server import ROOT, TorchServe
from training.errors import TrainingError

_START_TIMEOUT_S = 60.0


@contextmanager
def own_prometheus(folder: Path, server: TorchServe) -> Iterator[str]:
    """Start one that keeps its data in a folder, and yield its address; it ends with the block.

    Raises:
        TrainingError: it is not installed, or did not start; the message has its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = folder / "torchserve.json"
    targets.write_text(json.dumps([{"targets": [server.addresses.metrics.removeprefix("http://")]}]))
    config = folder / "prometheus.yml"
    config.write_text(_configuration(targets, server.model_store))
    address = f"127.0.0.1:{find_free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    log = folder / "log"
    try:
        with log.open("wb") as written:
            process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=written, stderr=written)
    except FileNotFoundError:
        raise TrainingError("prometheus is not installed: apt-get install prometheus") from None
    try:
        _wait_until_ready(f"http://{address}", process, log)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def _configuration(targets: Path, store: Path) -> str:
    text = (ROOT / "prometheus.yml").read_text(encoding="utf-8")
    for own, ours in (
        ("_interval: 5s", "_interval: 1s"),
        ("alerts/*", f"{ROOT}/alerts/*"),
        ("targets/torchserve.yml", str(targets)),
        ("model_store/deployed.json", f"{store}/deployed.json"),
    ):
        if own not in text:
            raise TrainingError(f"prometheus.yml has no {own!r} to be replaced; mend {Path(__file__).name}")
        text = text.replace(own, ours)
    return text


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(f"{url}/-/ready", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    raise TrainingError(f"prometheus did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")
