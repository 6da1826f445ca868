"""The sandbox: TorchServe under steady traffic, and what `cifar monitor` starts, with alerts in compressed time."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.own_server import find_free_port, write_free_config
from cifar.cli.deployment import find_target
from cifar.client.management import ManagementClient
from cifar.common.errors import CifarError
from cifar.common.project import ROOT
from cifar.deployment.target import Target
from cifar.monitoring.monitor import Monitor
from cifar.monitoring.programs import find_programs
from cifar.server.torchserve import TorchServe
from drill.notifications import AlertLog
from drill.time_compression import TimeCompression, shorten_intervals, write_rules
from drill.traffic import Images, Traffic


class DrillFailed(CifarError):
    """The drill could not continue, or an alert did not do what it should."""


@dataclass(frozen=True)
class Sandbox:
    """All of it, running."""

    folder: Path
    server: TorchServe
    traffic: Traffic
    alerts: AlertLog

    @property
    def target(self) -> Target:
        """The server, as the deployment tool wants it."""
        return find_target(self.server.config, self.server.model_store, self.server.run_dir)

    def manage(self) -> ManagementClient:
        """Connect to the management API."""
        return ManagementClient(self.server.addresses.management)


@contextmanager
def run_sandbox(
    folder: Path, archive: Path, images: Images, compression: TimeCompression, clients: int = 8, rate: float = 50
) -> Iterator[Sandbox]:
    """Start everything on free ports, and end it with the block.

    Args:
        folder: for all that is written; it should be empty.
        archive: what is served, as version 1.0.
        images: (N, 32, 32, 3), what the clients send.
        compression: of the alerts.
        clients: how many send requests.
        rate: requests a second of all of them together.

    Raises:
        ProgramMissing: Prometheus or Alertmanager is not installed.
        CifarError: as of TorchServe.start and Monitor.start.
    """
    find_programs()  # before a server is started
    store = folder / "model_store"
    store.mkdir(parents=True)
    shutil.copy(archive, store / "cifar-1.0.mar")
    server = TorchServe(folder / "run", write_free_config(folder), store)
    configs = _configure(folder, server, compression)
    monitor = Monitor(folder / "monitor", *configs, ("127.0.0.1", find_free_port()))
    with ExitStack() as running:
        running.callback(server.stop)
        server.start()
        running.callback(monitor.stop)
        monitor.start()
        traffic = running.enter_context(Traffic(server.addresses.inference, images, clients, rate))
        yield Sandbox(folder, server, traffic, AlertLog(folder / "monitor" / "alerts.jsonl"))


def _configure(folder: Path, server: TorchServe, compression: TimeCompression) -> tuple[Path, Path]:
    """Write prometheus.yml, which scrapes every second, shortened rules, and alertmanager.yml; all on free ports."""
    write_rules(ROOT / "alerts", folder / "alerts", compression)
    targets = folder / "targets"
    targets.mkdir()
    for name, address in (
        ("torchserve.yml", server.addresses.metrics.removeprefix("http://")),
        ("alertmanager.yml", f"127.0.0.1:{find_free_port()}"),
    ):
        (targets / name).write_text(json.dumps([{"targets": [address]}]), encoding="utf-8")
    prometheus = yaml.safe_load((ROOT / "prometheus.yml").read_text(encoding="utf-8"))
    prometheus["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    alertmanager = yaml.safe_load((ROOT / "alertmanager.yml").read_text(encoding="utf-8"))
    short = shorten_intervals(alertmanager, f"http://127.0.0.1:{find_free_port()}/")
    paths = folder / "prometheus.yml", folder / "alertmanager.yml"
    for path, config in zip(paths, (prometheus, short), strict=True):
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return paths


def wait_until(holds: Callable[[], object], timeout_s: float) -> bool:
    """Wait until something holds; return whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False
