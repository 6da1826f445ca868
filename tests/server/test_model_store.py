import json
import zipfile

import pytest

from cifar.common.errors import ArchiveUnusable
from cifar.server.model_store import check_model_store


@pytest.fixture
def store(tmp_path):
    with zipfile.ZipFile(tmp_path / "cifar-1.0.mar", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "cifar", "modelVersion": "1.0"}}))
        archive.writestr("model.pt", bytes(range(256)) * 64)
    return tmp_path


def test_whole_archive_passes_by_itself_and_by_name(store):
    archive = store / "cifar-1.0.mar"
    for models in (None, ["cifar=cifar-1.0.mar"], ["cifar-1.0.mar"]):
        assert check_model_store(store, models) == [archive]


def test_named_archive_that_is_not_there_is_rejected(store):
    with pytest.raises(ArchiveUnusable, match=r"cifar-2\.0\.mar is missing"):
        check_model_store(store, ["cifar=cifar-2.0.mar"])


def test_store_without_archives_is_rejected(tmp_path):
    with pytest.raises(ArchiveUnusable, match="holds no archive"):
        check_model_store(tmp_path)


@pytest.mark.parametrize("kept", range(0, 500, 50))
def test_archive_cut_anywhere_is_rejected(store, kept):
    archive = store / "cifar-1.0.mar"
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(ArchiveUnusable, match="truncated or no archive"):
        check_model_store(store)


def test_archive_with_one_changed_byte_is_rejected(store):
    archive = store / "cifar-1.0.mar"
    content = bytearray(archive.read_bytes())
    content[content.index(b"model.pt") + 40] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ArchiveUnusable, match=r"cifar-1\.0\.mar is (damaged in model\.pt|truncated)"):
        check_model_store(store)


@pytest.mark.parametrize("manifest", [None, "{", "[]", "{}", '{"model": {}}', '{"model": {"modelName": ""}}'])
def test_archive_without_a_manifest_that_names_a_model_is_rejected(tmp_path, manifest):
    with zipfile.ZipFile(tmp_path / "cifar-1.0.mar", "w") as archive:
        archive.writestr("model.pt", b"")
        if manifest is not None:
            archive.writestr("MAR-INF/MANIFEST.json", manifest)
    with pytest.raises(ArchiveUnusable, match=r"MAR-INF/MANIFEST\.json"):
        check_model_store(tmp_path)
