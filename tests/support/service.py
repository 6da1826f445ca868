"""What the tests of this folder build and talk to: archives by the plain commands, a server on free ports."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks.own_server import find_free_ports as free_ports
from benchmarks.own_server import write_free_config as write_config
from cifar.client.sessions import open_session
from cifar.common.project import ROOT
from cifar.server.torchserve import TorchServe

__all__ = ["BIN", "Service", "build_archive", "free_ports", "run", "write_config"]

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Service:
    """A running server, as a client sees it."""

    server: TorchServe

    @property
    def url(self) -> str:
        return self.server.addresses.inference

    @property
    def management_url(self) -> str:
        return self.server.addresses.management

    def manage(self, method: str, path: str, **query: str) -> requests.Response:
        """Send a request to the management API as curl would, which sends what no client of ours would."""
        session, base = open_session(self.management_url)
        with session:
            return session.request(method, base + path, params=query, timeout=60)

    def post(
        self, body: Any, content_type: str | None, path: str = "/predictions/cifar", **headers: str
    ) -> requests.Response:
        """Send one request; names of headers have underscores for dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            sent["Content-Type"] = content_type
        return requests.post(self.url + path, data=body, headers=sent, timeout=60)

    def post_together(self, requests_to_send: list[tuple[Any, str]]) -> list[requests.Response]:
        """Send requests at the same time, so that TorchServe batches them; answers in the order given."""
        with ThreadPoolExecutor(len(requests_to_send)) as pool:
            return list(pool.map(lambda request: self.post(*request), requests_to_send))


def build_archive(weights: Path, version: str, folder: Path, *, handler: Path = ROOT / "handler") -> Path:
    """Export weights and pack them, by the commands that Makefile and dvc.yaml show; return the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.pt"
    # Made weights, which nobody measured: no gate.
    run(sys.executable, "-m", "training.export", "--no-gate", f"archive.version={version}",
        "--data", folder / "none.npz", "--weights", weights, "--output", model)  # fmt: skip
    archive = folder / f"cifar-{version}.mar"
    run(BIN / "cifar", "archive", model, "--version", version, "--handler", handler, "--output", archive)
    return archive


def run(*command: Any, env: dict[str, str] | None = None) -> str:
    """Run a command in the repository root; its output where it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | (env or {}), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
