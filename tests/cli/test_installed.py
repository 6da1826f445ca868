"""The package without its checkout: `pip install .`, not editable, used from another folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fake_server import FakeServer
from tests.support.odd_images import CONVERTED

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("cifar", "handler", "training"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def cifar(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cifar.cli.main", *map(str, arguments)]
        env = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "200"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_it_has_its_types_and_a_copy_of_the_handler(installed):
    assert (installed / "cifar" / "py.typed").is_file()
    assert (installed / "bin" / "cifar").is_file()
    kept = {path.name for path in (REPOSITORY / "handler").iterdir() if path.suffix in {".py", ".json"}}
    assert {path.name for path in (installed / "cifar" / "_handler").iterdir()} >= kept | {"model-config.yaml"}


def test_it_predicts_images_that_the_client_must_convert(cifar, server: FakeServer, tmp_path):
    (tmp_path / "image.bmp").write_bytes(CONVERTED["plain.bmp"])
    done = cifar("predict", tmp_path / "image.bmp", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 predicted" in done.stdout


def test_it_has_its_ten_drawings(cifar, server: FakeServer):
    done = cifar("predict", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "10 of 10 predicted" in done.stdout


def test_it_builds_an_archive(cifar, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"a network")
    done = cifar("archive", "model.pt", "--version", "1.0", "--output", "cifar-1.0.mar")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cifar-1.0.mar").is_file()


@pytest.mark.parametrize("command", [["up"], ["monitor"], ["ready"], ["predict", "--samples", "test-set"]])
def test_what_needs_the_checkout_says_so(cifar, command, server: FakeServer, tmp_path):
    done = cifar(*command, *(["--url", server.url] if command[0] == "predict" else []))
    assert done.returncode == 1
    assert "needs the checkout, and only the package is installed" in done.stderr
    assert list(tmp_path.iterdir()) == []
