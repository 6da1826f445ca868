"""Every command of a checkout means that checkout's server: a copy with other ports, beside another server."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from benchmarks.own_server import find_free_ports
from cifar.client.sessions import MAX_SOCKET_PATH_BYTES
from cifar.common.project import ROOT
from tests.support.service import BIN

FOLDERS = ("cifar", "handler", "targets", "training")


@pytest.fixture
def checkout(quick_archive, tmp_path):
    """A copy of what serving needs, at a path that is too long for a Unix socket, with ports of its own."""
    copy = tmp_path / ("a long path " * 10).strip() / "checkout"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    text = (ROOT / "config.properties").read_text()
    for port, free in zip(("8080", "8082", "7070"), find_free_ports(3), strict=True):
        assert text.count(f"{port}\n") == 1
        text = text.replace(f"{port}\n", f"{free}\n")
    (copy / "config.properties").write_text(text)
    shutil.copy(ROOT / "log4j2.xml", copy)
    (copy / "model_store").mkdir()
    shutil.copy(quick_archive, copy / "model_store")
    assert len(bytes(copy / "management.sock")) > MAX_SOCKET_PATH_BYTES
    return copy


def test_commands_without_an_address_mean_the_server_of_their_checkout(checkout, torchserve):
    def cifar(*arguments: str) -> subprocess.CompletedProcess[str]:
        # In front of where the package is installed from.
        environment = os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "300"}
        command = [sys.executable, str(BIN / "cifar"), *arguments]
        return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=180)

    config = (checkout / "config.properties").read_text()
    [address] = [line.partition("=")[2] for line in config.splitlines() if line.startswith("inference_address=")]
    try:
        done = cifar("up")
        assert (done.returncode, f"POST {address}/predictions/cifar" in done.stderr) == (0, True), done.stderr
        assert (checkout / "management.sock").is_socket()
        done = cifar("predict")
        assert (done.returncode, f"model version 1.0 at {address}" in done.stdout) == (0, True), done.stderr
        done = cifar("status", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["differences"] == []
        done = cifar("scale", "1.0", "1")
        assert done.returncode == 0, done.stderr
        [deployed] = json.loads((checkout / "model_store" / "deployed.json").read_text())
        assert deployed["labels"]["model_version"] == "1.0"
    finally:
        assert cifar("down").returncode == 0
    assert not (checkout / "management.sock").exists()
    assert not (checkout / "run").exists()
    done = cifar("predict")
    assert (done.returncode, f"answers at {address}: nothing listens there" in done.stderr) == (1, True)


def test_the_monitor_of_a_checkout_scrapes_its_server(checkout):
    program = (
        "from cifar.common.addresses import own_addresses; "
        "from cifar.monitoring.targets import follow_metrics_address; "
        "assert follow_metrics_address(own_addresses())"
    )
    subprocess.run([sys.executable, "-c", program], cwd="/", env=os.environ | {"PYTHONPATH": str(checkout)}, check=True)
    config = (checkout / "config.properties").read_text()
    [address] = [line.partition("=")[2] for line in config.splitlines() if line.startswith("metrics_address=")]
    [group] = yaml.safe_load((checkout / "targets" / "torchserve.yml").read_text())
    assert [f"http://{target}" for target in group["targets"]] == [address]
