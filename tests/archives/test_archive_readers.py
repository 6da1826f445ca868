"""Every command that opens an archive says in one line what is wrong with a bad one."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from cifar.archives.build import normalise
from cifar.archives.signing import required_key, sign_archive, signing_key
from cifar.common.errors import ArchiveUnusable, SignatureRejected
from cifar.common.project import ROOT
from cifar.server.model_store import check_model_store
from cifar.server.torchserve import TorchServe
from tests.archives.test_inspection import set_flags
from tests.archives.test_strict_zip import Part, write_zip
from tests.support.keys import write_pair
from tests.support.service import BIN, write_config

MANIFEST = {"model": {"modelName": "cifar", "modelVersion": "1.0", "serializedFile": "model.pt"}}


def archive_of(manifest: bytes) -> bytes:
    return write_zip(Part(b"model.pt"), Part(b"MAR-INF/MANIFEST.json", manifest))


GOOD = json.dumps(MANIFEST).encode()
BAD = {
    "nested deeply": archive_of(b'{"a":' * 100_000),
    "of an unknown method": write_zip(Part(b"model.pt", method=99), Part(b"MAR-INF/MANIFEST.json", GOOD)),
    "with a name that is no UTF-8": write_zip(Part(b"\xff", flags=0x800), Part(b"MAR-INF/MANIFEST.json", GOOD)),
    "with a manifest that is no UTF-8": archive_of(b'{"model": {"modelName": "\xff"}}'),
    "with a list for a model": archive_of(b'{"model": ["modelName"]}'),
    "cut off": archive_of(GOOD)[:-30],
}


@pytest.fixture(params=[*BAD, "encrypted", "a FIFO"])
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "store" / "cifar-1.0.mar"
    path.parent.mkdir()
    if request.param == "a FIFO":
        os.mkfifo(path)
    else:
        path.write_bytes(BAD.get(request.param, archive_of(GOOD)))
    if request.param == "encrypted":
        set_flags(path, 1)
    return path


def test_each_command_says_it_in_a_line(bad, tmp_path):
    config = write_config(tmp_path)
    where = ["--config", config, "--model-store", bad.parent, "--run-dir", tmp_path / "run"]
    for command in ([BIN / "cifar", "deploy", bad, *where], [BIN / "cifar", "up", *where]):
        done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1, command
        assert "Traceback" not in done.stderr + done.stdout
        assert str(bad) in " ".join(done.stderr.split()) or str(bad) in done.stderr.replace("\n", "")
        assert len(done.stderr) < 1500
    traced = [BIN / "cifar", "trace", "--archive", bad, "--json", "--model-store", bad.parent]
    done = subprocess.run([str(part) for part in traced], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "cifar-1.0.mar"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pt", b"network")
        archive.writestr("MAR-INF/MANIFEST.json", GOOD)
    return path


def test_with_a_key_a_server_starts_only_with_what_is_signed(good, tmp_path, monkeypatch):
    private, public = write_pair(tmp_path / "keys")
    assert check_model_store(good.parent) == [good]
    monkeypatch.setenv("CIFAR_VERIFY_KEY", str(public))
    with pytest.raises(SignatureRejected, match=r"cifar-1\.0\.mar is not signed"):
        TorchServe(tmp_path / "run", write_config(tmp_path), good.parent).start()
    sign_archive(good, private)
    assert check_model_store(good.parent) == [good]
    other, _public = write_pair(tmp_path / "other")
    sign_archive(good, other)
    with pytest.raises(SignatureRejected, match="was not made with the other half"):
        check_model_store(good.parent, ["cifar=cifar-1.0.mar"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_an_empty_key_is_an_error_and_does_not_mean_off(good, tmp_path, monkeypatch, value):
    assert (required_key(), signing_key()) == (None, None)
    monkeypatch.setenv("CIFAR_VERIFY_KEY", value)
    with pytest.raises(SignatureRejected, match="CIFAR_VERIFY_KEY is set and empty"):
        check_model_store(good.parent)
    done = subprocess.run([str(BIN / "cifar"), "deploy", str(good)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "CIFAR_VERIFY_KEY is set and empty" in done.stderr) == (1, True)
    monkeypatch.setenv("CIFAR_SIGNING_KEY", value)
    with pytest.raises(SignatureRejected, match="CIFAR_SIGNING_KEY is set and empty"):
        normalise(good, tmp_path / "out.mar")
    assert not (tmp_path / "out.mar").exists()


def test_an_archive_made_to_be_read_differently_does_not_start_a_server(good):
    good.write_bytes(write_zip(Part(b"a.py"), Part(b"a.py", b"other"), Part(b"MAR-INF/MANIFEST.json", GOOD)))
    with pytest.raises(ArchiveUnusable, match=r"cifar-1\.0\.mar is rejected: it holds 'a\.py' and 'a\.py'"):
        check_model_store(good.parent)
