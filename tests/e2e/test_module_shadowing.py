"""What runs is what was packed, whatever Python's environment variables say."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from cifar.common.project import ROOT
from cifar.server.java import find_java_home
from cifar.server.torchserve import TorchServe
from tests.support.service import BIN, write_config
from tests.support.tiny import copy_handler, tiny_archive

RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return tiny_archive(folder, "1.0", 1, copy_handler(folder / "handler"))


@pytest.fixture
def server(packed, tmp_path):
    store = tmp_path / "model_store"
    store.mkdir()
    shutil.copy(packed, store)
    server = TorchServe(tmp_path / "run", write_config(tmp_path), store)
    yield server
    server.stop()


def foreign(folder: Path, module: str) -> Path:
    """A folder with a module of the handler's name that leaves a mark when it is imported."""
    folder.mkdir()
    text = f"from pathlib import Path\nPath({str(folder / 'imported')!r}).touch()\n"
    (folder / f"{module}.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        ("cifar_handler", {}),
        ("pixels", {"PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error"}),
        ("sitecustomize", {"PYTHONHOME": "/nonexistent", "PYTHONOPTIMIZE": "2"}),
    ],
)
def test_cifar_up_serves_the_archive_whatever_pythons_variables_say(server, tmp_path, monkeypatch, module, settings):
    folder = foreign(tmp_path / "foreign", module)
    for name, value in {"PYTHONPATH": str(folder), **settings}.items():
        monkeypatch.setenv(name, value)
    server.start()
    answer = requests.post(f"{server.addresses.inference}/predictions/cifar", bytes(3072), headers=RAW, timeout=30)
    assert (answer.status_code, answer.headers["X-Model-Digest"]) == (200, "0" * 12)
    assert not (folder / "imported").exists()


@contextmanager
def plain_torchserve(server: TorchServe, folder: Path, python_path: Path) -> Iterator[Callable[[], str]]:
    """Start the plain command; gives a function that reads its console."""
    env = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "JAVA_HOME": str(find_java_home()),
        "LOG_LOCATION": str(folder / "logs"),
        "PWD": str(ROOT),
        "TMPDIR": str(folder),
        "TEMP": str(folder),
        "PYTHONPATH": str(python_path),
    }
    command = ["torchserve", "--start", "--ts-config", str(server.config), "--model-store", str(server.model_store)]
    console = folder / "console.log"
    with console.open("wb") as output:
        subprocess.run(command, cwd=ROOT, env=env, stdout=output, stderr=output, check=True)
    try:
        yield console.read_text
    finally:
        subprocess.run(["torchserve", "--stop", "--foreground"], cwd=ROOT, env=env, check=True, capture_output=True)


def until(condition: Callable[[], bool], deadline_s: float = 60) -> bool:
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


def answers(server: TorchServe) -> bool:
    url = f"{server.addresses.inference}/predictions/cifar"
    try:
        return requests.post(url, bytes(3072), headers=RAW, timeout=10).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.parametrize("module", ["decoding", "telemetry"])
def test_plain_torchserve_takes_the_modules_beside_the_handler_from_the_archive(server, tmp_path, module):
    folder = foreign(tmp_path / "foreign", module)
    with plain_torchserve(server, tmp_path, folder) as console:
        assert until(lambda: answers(server)), console()
    assert not (folder / "imported").exists()


def test_plain_torchserve_with_another_copy_of_the_handler_fails_in_one_line(server, tmp_path):
    """As on a developer's machine, with the folder handler/ of a checkout in PYTHONPATH."""
    copy = copy_handler(tmp_path / "copy")
    with plain_torchserve(server, tmp_path, copy) as console:
        assert until(lambda: "start TorchServe without PYTHONPATH" in console())
        [line, *_] = [line for line in console().splitlines() if "start TorchServe without PYTHONPATH" in line]
        assert f"was loaded from {copy}" in line
        assert not answers(server)
