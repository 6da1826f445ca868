"""`cifar archive` builds with the real torch-model-archiver, and replaces nothing that was deployed."""

import hashlib
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from cifar.archives.build import build_archive
from cifar.cli.archive import archive
from cifar.common.errors import ArchiveRejected, InvalidStateFile
from cifar.common.project import HANDLER
from cifar.server.desired_state import DesiredState, ServedVersion, store_lock, write_desired_state


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"a network")
    return path


def build(model, output, version="1.0"):
    archive(model, version, output, HANDLER)
    return hashlib.sha256(output.read_bytes()).hexdigest()


def test_an_archive_has_the_network_the_handler_and_its_digest_beside_it(model, tmp_path):
    made = tmp_path / "store" / "cifar-mlflow-7.mar"
    digest = build(model, made, "mlflow-7")
    with zipfile.ZipFile(made) as content:
        assert content.read("model.pt") == b"a network"
        assert {"cifar_handler.py", "decoding.py", "index_to_name.json"} <= set(content.namelist())
    assert made.with_name("cifar-mlflow-7.mar.sha256").read_text() == f"{digest}  cifar-mlflow-7.mar\n"
    assert build(model, made, "mlflow-7") == digest


def test_a_network_that_is_missing_is_a_clear_rejection(tmp_path):
    with pytest.raises(ArchiveRejected, match=r"could not pack none\.pt"):
        build_archive(tmp_path / "none.pt", "1.0", tmp_path / "cifar-1.0.mar")
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_no_url_can_name_is_rejected(model, tmp_path):
    with pytest.raises(ArchiveRejected, match="is no version"):
        build(model, tmp_path / "cifar.mar", "../1")


def test_a_key_that_cannot_be_used_is_told_as_a_rejection(model, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_SIGNING_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(ArchiveRejected, match=r"none\.pem cannot be read.*CIFAR_SIGNING_KEY"):
        build(model, tmp_path / "store" / "cifar-1.0.mar")


def test_what_was_deployed_is_not_replaced_by_other_content(model, tmp_path):
    made = tmp_path / "store" / "cifar-1.0.mar"
    digest = build(model, made)
    write_desired_state(made.parent, DesiredState("1.0", (ServedVersion("1.0", made.name, digest),)))
    assert build(model, made) == digest
    model.write_bytes(b"another network")
    with pytest.raises(ArchiveRejected, match=r"was deployed as version 1\.0, and what was built now differs"):
        build(model, made)
    assert hashlib.sha256(made.read_bytes()).hexdigest() == digest
    assert made.with_name("cifar-1.0.mar.sha256").read_text().split()[0] == digest
    build(model, made.with_name("cifar-2.0.mar"), "2.0")
    (made.parent / "serving.json").write_text("{")
    with pytest.raises(InvalidStateFile, match=r"serving\.json does not say"):
        build(model, made.with_name("cifar-2.0.mar"), "2.0")


def test_what_is_deployed_while_this_waits_is_not_replaced(model, tmp_path):
    store = tmp_path / "store"
    made = store / "cifar-1.0.mar"
    with ThreadPoolExecutor(1) as pool:
        with store_lock(store) as mine:
            assert mine
            made.write_bytes(b"what is deployed just now")
            building = pool.submit(build, model, made)
            time.sleep(0.5)
            assert not building.done()
            write_desired_state(store, DesiredState("1.0", (ServedVersion("1.0", made.name, "a" * 64),)))
        with pytest.raises(ArchiveRejected, match=r"was deployed as version 1\.0"):
            building.result(30)
    assert made.read_bytes() == b"what is deployed just now"


def test_waiting_for_a_deployment_has_an_end(model, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar.cli.archive._LOCK_TIMEOUT_S", 0.1)
    with store_lock(tmp_path / "store"), pytest.raises(ArchiveRejected, match="Another process is changing"):
        build(model, tmp_path / "store" / "cifar-1.0.mar")
    assert list((tmp_path / "store").iterdir()) == []
