"""A Prometheus beside a benchmark's own server, with the project's configuration and rules; it scrapes every second."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.own_server import find_free_port
from cifar.common.errors import MonitorFailed
from cifar.common.project import ROOT
from cifar.monitoring.processes import spawn, terminate, wait_until_ready
from cifar.monitoring.programs import Program
from cifar.server.torchserve import TorchServe
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
    found = shutil.which("prometheus")
    if found is None:
        raise TrainingError("prometheus is not installed: apt-get install prometheus")
    port = find_free_port()
    command = (
        found,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    program = Program("Prometheus", ("127.0.0.1", port), command, folder / "log")
    started = spawn(program)
    try:
        try:
            wait_until_ready(program, started, _START_TIMEOUT_S)
        except MonitorFailed as error:
            raise TrainingError(str(error)) from None
        yield program.url
    finally:
        terminate([started])


def _configuration(targets: Path, store: Path) -> str:
    text = (ROOT / "prometheus.yml").read_text(encoding="utf-8")
    for own, ours in (
        ("_interval: 5s", "_interval: 1s"),
        ("alerts/*", f"{ROOT}/alerts/*"),
        ("targets/torchserve.yml", str(targets)),
        ("model_store/deployed.json", f"{store}/deployed.json"),
    ):
        if own not in text:
            raise TrainingError(f"prometheus.yml has no {own!r} to be replaced; fix {Path(__file__).name}")
        text = text.replace(own, ours)
    return text
