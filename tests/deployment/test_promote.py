"""Packing a model of the registry; tests/e2e/test_registry.py deploys such archives."""

import zipfile

import pytest

from deployment.errors import ArchiveRefused
from deployment.promote import pack


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"a network")
    return path


def test_a_model_is_packed_with_the_handler_of_this_checkout(model, tmp_path):
    archive = pack(model, "mlflow-7", tmp_path)
    assert archive.name == "cifar-mlflow-7.mar"
    with zipfile.ZipFile(archive) as content:
        assert content.read("model.pt") == b"a network"
        assert "cifar_handler.py" in content.namelist()


def test_a_key_that_cannot_be_used_is_told_as_a_refusal(model, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_SIGNING_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(ArchiveRefused, match=r"none\.pem cannot be read.*CIFAR_SIGNING_KEY"):
        pack(model, "mlflow-7", tmp_path)
