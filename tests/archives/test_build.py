"""Archives that are the same bytes whenever, wherever and in whatever order they are packed."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from cifar.archives.build import normalise
from cifar.archives.signing import verify_archive
from cifar.common.errors import ArchiveRejected
from tests.support.keys import write_pair
from training.model import ModelParams, build_classifier
from training.weights import save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFEST = {"createdOn": "23/11/2026 20:06:58", "model": {"modelName": "cifar", "modelVersion": "1.0"}}


def pack(path, names, year, mode, manifest=MANIFEST):
    """An archive as torch-model-archiver could have made it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, (year, 2, 3, 4, 5, 6))
            entry.external_attr = mode << 16
            archive.writestr(entry, f"content of {name}")
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return path


def test_order_dates_modes_and_the_time_of_packing_do_not_show(tmp_path):
    one = pack(tmp_path / "one.mar", ["model.pt", "handler.py"], 2025, 0o100600)
    other = pack(tmp_path / "other.mar", ["handler.py", "model.pt"], 2026, 0o100644, MANIFEST | {"createdOn": "later"})
    assert one.read_bytes() != other.read_bytes()
    made, made_of_other = tmp_path / "store" / "one.mar", tmp_path / "store" / "other.mar"
    assert normalise(one, made) == normalise(other, made_of_other)
    assert made.read_bytes() == made_of_other.read_bytes()
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == ["MAR-INF/MANIFEST.json", "handler.py", "model.pt"]
        assert archive.read("model.pt") == b"content of model.pt"
        assert json.loads(archive.read("MAR-INF/MANIFEST.json")) == {"model": MANIFEST["model"]}


def test_what_is_in_an_archive_does_show(tmp_path):
    one = pack(tmp_path / "one.mar", ["a"], 2026, 0o100644)
    later = MANIFEST | {"model": {"modelName": "cifar", "modelVersion": "1.1"}}
    other = pack(tmp_path / "other.mar", ["a"], 2026, 0o100644, later)
    assert normalise(one, one) != normalise(other, other)
    assert one.read_bytes() != other.read_bytes()


def test_the_digest_stands_beside_the_archive_as_sha256sum_reads_it(tmp_path):
    made = tmp_path / "store" / "cifar-1.0.mar"
    digest = normalise(pack(tmp_path / "cifar.mar", ["model.pt"], 2026, 0o100644), made)
    assert digest == hashlib.sha256(made.read_bytes()).hexdigest()
    check = ["sha256sum", "--check", "--strict", "cifar-1.0.mar.sha256"]
    assert subprocess.run(check, cwd=made.parent, capture_output=True).returncode == 0
    made.write_bytes(made.read_bytes() + b"x")
    assert subprocess.run(check, cwd=made.parent, capture_output=True).returncode == 1


def test_an_archive_that_could_not_be_replaced_does_not_fit_the_new_digest(tmp_path, monkeypatch):
    """As when the process is killed between the two files: what is there must not pass for the new one."""
    made = tmp_path / "cifar-1.0.mar"
    normalise(pack(tmp_path / "one.mar", ["a"], 2026, 0o100644), made)
    before = made.read_bytes()
    replace = Path.replace

    def fail_on_the_archive(path, target):
        if target == made:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_on_the_archive)
    with pytest.raises(KeyboardInterrupt):
        normalise(pack(tmp_path / "other.mar", ["b"], 2026, 0o100644), made)
    assert made.read_bytes() == before
    recorded = (tmp_path / "cifar-1.0.mar.sha256").read_text().split()[0]
    assert recorded != hashlib.sha256(before).hexdigest()
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith(".")) == []


def test_with_a_key_the_archive_is_signed_and_without_one_no_old_signature_stays(tmp_path, monkeypatch):
    private, public = write_pair(tmp_path / "keys")
    source, made = pack(tmp_path / "one.mar", ["a"], 2026, 0o100644), tmp_path / "store" / "cifar-1.0.mar"
    monkeypatch.setenv("CIFAR_SIGNING_KEY", str(private))
    normalise(source, made)
    verify_archive(made, public)
    monkeypatch.setenv("CIFAR_SIGNING_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(ArchiveRejected, match=r"none\.pem cannot be read.*CIFAR_SIGNING_KEY"):
        normalise(source, made)
    verify_archive(made, public)
    monkeypatch.delenv("CIFAR_SIGNING_KEY")
    normalise(source, made)
    assert sorted(path.name for path in made.parent.iterdir()) == ["cifar-1.0.mar", "cifar-1.0.mar.sha256"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "no manifest", "a list for a manifest"])
def test_a_damaged_archive_is_rejected_and_left_alone(tmp_path, damage):
    path = tmp_path / "cifar.mar"
    if damage == "no manifest":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.pt", "x")
    elif damage == "a list for a manifest":
        pack(path, ["model.pt"], 2026, 0o100644, [])
    else:
        pack(path, ["model.pt"], 2026, 0o100644)
        path.write_bytes(path.read_bytes()[:-30] if damage == "truncated" else b"")
    before = path.read_bytes()
    with pytest.raises(ArchiveRejected, match=r"cifar\.mar is no archive"):
        normalise(path, path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("cifar.mar", before)]


def test_a_network_is_exported_to_the_same_bytes_in_another_folder_and_another_process(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "weights" / "best_cnn_model.pth"
    save_weights(build_classifier(ModelParams(hidden_width=8)).network.state_dict(), weights)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("training", "handler", "params.yaml"):  # the same code under another path
        (elsewhere / name).symlink_to(REPOSITORY / name)
    digests = set()
    for number, folder in enumerate((REPOSITORY, elsewhere)):
        output = tmp_path / f"{number}.pt"
        options = ["--no-gate", "--data", "none.npz", "--weights", str(weights), "--output", str(output)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
        subprocess.run(
            [sys.executable, "-m", "training.export", *options],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(folder)},
            check=True,
            capture_output=True,
        )
        digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
    assert len(digests) == 1
