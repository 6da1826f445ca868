"""The service that is broken: TorchServe, Prometheus, Alertmanager and a webhook, under steady traffic."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
import yaml

from benchmarks.own_server import find_free_port, write_free_config
from client.errors import CifarError
from client.management import ManagementClient
from deployment.commands import find_target
from deployment.target import Target
from drill.shortening import Shortening, quicken_notifications, write_rules
from drill.traffic import Images, Traffic
from drill.webhook import Webhook
from launcher.server import ROOT, TorchServe

_READY_S = 30.0
INSTALL = "sudo apt-get install prometheus prometheus-alertmanager"


class DrillFailed(CifarError):
    """The drill could not be set up, or an alert did not do what it should."""


@dataclass(frozen=True)
class Site:
    """All of it, running."""

    folder: Path
    server: TorchServe
    traffic: Traffic
    webhook: Webhook
    prometheus: str

    @property
    def target(self) -> Target:
        """The server, as the deployment tool wants it."""
        return find_target(self.server.config, self.server.model_store, self.server.run_dir)

    def manage(self) -> ManagementClient:
        """Connect to the management API."""
        return ManagementClient(self.server.addresses.management)


@contextmanager
def run_site(folder: Path, archive: Path, images: Images, shortening: Shortening, **load: float) -> Iterator[Site]:
    """Start everything, and end it with the block.

    Args:
        folder: for all that is written; it should be empty.
        archive: what is served, as version 1.0.
        images: (N, 32, 32, 3), what the clients send.
        shortening: of the alerts.
        load: `clients` and `rate` of the traffic.

    Raises:
        DrillFailed: a program is missing or did not start.
        CifarError: as of TorchServe.start.
    """
    prometheus, alertmanager = _find("prometheus"), _find("prometheus-alertmanager", "alertmanager")
    store = folder / "model_store"
    store.mkdir(parents=True)
    shutil.copy(archive, store / "cifar-1.0.mar")
    server = TorchServe(folder / "run", write_free_config(folder), store)
    with ExitStack() as running:
        webhook = running.enter_context(Webhook())
        running.callback(server.stop)
        server.start()
        config = yaml.safe_load((ROOT / "alertmanager.yml").read_text(encoding="utf-8"))
        quick = folder / "alertmanager.yml"
        quick.write_text(yaml.safe_dump(quicken_notifications(config, webhook.url)), encoding="utf-8")
        address = f"127.0.0.1:{find_free_port()}"
        command = [alertmanager, f"--config.file={quick}", f"--storage.path={folder}/alertmanager"]
        command += [f"--web.listen-address={address}", "--cluster.listen-address="]
        running.enter_context(_run(command, f"http://{address}", folder / "alertmanager.log"))
        _configure_prometheus(folder, server, address, shortening)
        address = f"127.0.0.1:{find_free_port()}"
        command = [prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"]
        command += [f"--web.listen-address={address}"]
        running.enter_context(_run(command, f"http://{address}", folder / "prometheus.log"))
        traffic = running.enter_context(Traffic(server.addresses.inference, images, **load))  # type: ignore[arg-type]
        yield Site(folder, server, traffic, webhook, f"http://{address}")


def _find(*names: str) -> str:
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise DrillFailed(f"{names[0]} is not installed; this brings it: {INSTALL}")
    return found


def _configure_prometheus(folder: Path, server: TorchServe, alertmanager: str, shortening: Shortening) -> None:
    """Write prometheus.yml with the same jobs, a look every second, shortened rules and other targets."""
    write_rules(ROOT / "alerts", folder / "alerts", shortening)
    targets = folder / "targets"
    targets.mkdir()
    for name, address in (
        ("torchserve.yml", server.addresses.metrics.removeprefix("http://")),
        ("alertmanager.yml", alertmanager),
    ):
        (targets / name).write_text(json.dumps([{"targets": [address]}]), encoding="utf-8")
    config = yaml.safe_load((ROOT / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")


@contextmanager
def _run(command: list[str], url: str, log: Path) -> Iterator[None]:
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written)
    try:
        wait_until(lambda: process.poll() is not None or _is_ready(url), _READY_S)
        if process.poll() is not None or not _is_ready(url):
            raise DrillFailed(
                f"{command[0]} did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}"
            )
        yield
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=5).ok
    except requests.RequestException:
        return False


def wait_until(holds: Callable[[], object], timeout_s: float) -> bool:
    """Wait until something holds; return whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False
