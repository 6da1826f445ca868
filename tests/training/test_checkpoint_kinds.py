"""Files that are no checkpoint of tensors: each is named, with the line that helps, and nothing of it is run."""

import bz2
import gzip
import json
import lzma
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.errors import WeightsError
from training.model import ModelParams, build_network
from training.weights import load_classifier, load_weights

SMALL = ModelParams("SimpleCNN", filters=(2, 3), hidden_width=4)
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x00"  # ir_version, producer_name, producer_version, an empty graph
SAVE_LINE = "torch.save(network.state_dict(), 'best_cnn_model.pth')"


class Net(nn.Module):
    """What a script of somebody else's defines, so that its pickle names a class that is not here."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 3)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return build_network(SMALL)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "their weights.pth"


def message_of(path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert len(text) < len(str(path)) * 2 + 500
    return text


def safetensors(tensors) -> bytes:
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 1234567\n"
DVC = "outs:\n- md5: " + "4d7a" * 8 + "\n  size: 1234567\n  hash: md5\n  path: best_cnn_model.pth\n"


@pytest.mark.parametrize(
    ("content", "kind", "line"),
    [
        pytest.param(b"", "is empty", "download it again", id="empty"),
        pytest.param(LFS.encode(), "pointer of Git LFS", "git lfs pull --include '", id="Git LFS"),
        pytest.param(DVC.encode(), "pointer of DVC", "dvc pull '", id="DVC"),
        pytest.param(b"<!DOCTYPE html><html lang=en>", "web page (HTML)", "curl -fL -o '", id="HTML"),
        pytest.param(b"\xef\xbb\xbf\n <HTML>", "web page (HTML)", "/resolve/", id="HTML in capitals behind a BOM"),
        pytest.param(b'<?xml version="1.0"?><Error><Code>AccessDenied', "web page", "curl", id="an error of S3"),
        pytest.param(b'{"message": "Not Found"}', "JSON", "Not Found", id="an error in JSON"),
        pytest.param(ONNX, "ONNX", SAVE_LINE, id="ONNX"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(500), "HDF5", SAVE_LINE, id="Keras h5"),
        pytest.param(b"\x08\x01\x12\xd0\x05\n" + bytes(90), "SavedModel of TensorFlow", SAVE_LINE, id="SavedModel"),
        pytest.param(b"\x1c\0\0\0TFL3" + bytes(90), "TensorFlow Lite", SAVE_LINE, id="TensorFlow Lite"),
        pytest.param(b"hello", "no weights file, or a truncated one", "", id="text"),
        pytest.param(bytes(5000), "no weights file, or a truncated one", "", id="zeros"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(path, content, kind, line):
    path.write_bytes(content)
    text = message_of(path)
    assert kind in text
    assert line in text


def test_a_pointer_file_of_dvc_itself_names_what_to_pull(tmp_path):
    path = tmp_path / "best_cnn_model.pth.dvc"
    path.write_text(DVC)
    assert message_of(path).endswith(f"dvc pull {tmp_path}/best_cnn_model.pth")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_the_line_for_a_compressed_checkpoint_unpacks_it(tmp_path, path, small, compress):
    torch.save(small.state_dict(), path)
    path.write_bytes(compress(path.read_bytes()))
    line = message_of(path).partition("; ")[2]
    if shutil.which(line.split()[0]):
        subprocess.run(line, shell=True, cwd=tmp_path, check=True)
        assert load_weights(tmp_path / "best_cnn_model.pth").keys() == small.state_dict().keys()


def test_archives_of_checkpoints_are_named_with_what_unpacks_them(tmp_path, path, small):
    torch.save(small.state_dict(), tmp_path / "model.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "model.pth", "model.pth")
    assert "is a zip archive (model.pth); unzip '" in message_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
        archive.write(tmp_path / "model.pth", "model.pth")
    assert "archive of TorchServe" in message_of(path)
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "model.pth", "model.pth")
    assert "is a tar archive; tar -xf '" in message_of(path)


def run_python_line(text: str, folder) -> None:
    """Run the `python -c …` of a message, as its reader would."""
    line = text[text.index('python -c "') :].partition(".pth')\"")[0] + ".pth')\""
    subprocess.run(line.replace("python", sys.executable, 1), shell=True, cwd=folder, check=True)


def test_the_line_for_torchscript_makes_weights_that_answer_the_same(tmp_path, path, small):
    torch.jit.save(torch.jit.script(small.eval()), path)
    text = message_of(path)
    assert "is TorchScript" in text
    run_python_line(text, tmp_path)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    classifier = load_classifier(tmp_path / "best_cnn_model.pth", ["model.pool_first=true"])
    with torch.inference_mode():
        torch.testing.assert_close(
            classifier.network(images.permute(0, 3, 1, 2).float()), small(images.permute(0, 3, 1, 2).float())
        )


def test_the_line_for_npz_makes_a_state_dict(tmp_path, path, small):
    with path.open("wb") as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in small.state_dict().items()})
    text = message_of(path)
    assert "NumPy (.npz)" in text
    run_python_line(text, tmp_path)
    assert load_weights(tmp_path / "best_cnn_model.pth").keys() == small.state_dict().keys()


def test_safetensors_is_named_with_its_reader(path, small):
    path.write_bytes(safetensors(small.state_dict()))
    text = message_of(path)
    assert "is safetensors" in text
    assert f"load_file({str(path)!r})" in text


def test_a_program_of_torch_export_is_named(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/models/model.json", "{}")
    assert "torch.export.load(" in message_of(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module_is_named_with_its_class(path, zipped):
    torch.save(Net(), path, _use_new_zipfile_serialization=zipped)
    text = message_of(path)
    assert "is a whole module" in text
    assert "Net" in text
    assert f"torch.save(torch.load({str(path)!r}, weights_only=False).state_dict(), 'best_cnn_model.pth')" in text


class Settings:
    learning_rate = 0.1


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_tensors_are_named_with_the_key_to_take(path, small, zipped):
    content = {"epoch": 3, "settings": Settings(), "model_state_dict": small.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    text = message_of(path)
    assert "holds objects beside its tensors" in text
    assert "Settings" in text
    assert 'weights_only=False)["model_state_dict"], ' in text


def test_a_bare_pickle_is_named(path, small):
    path.write_bytes(pickle.dumps(small.state_dict()))
    assert "is a bare pickle" in message_of(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_checkpoints_say_so(path, small, zipped):
    torch.save(small.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "truncated" in message_of(path), share


def test_folders_and_devices_are_named(tmp_path):
    assert "is a folder" in message_of(tmp_path)
    with pytest.raises(WeightsError, match="/dev/zero is no regular file"):
        load_weights(Path("/dev/zero"))


def test_what_unpacks_to_more_than_any_network_has_is_rejected_unread(path, monkeypatch):
    monkeypatch.setattr("training.weights._MAX_FILE_BYTES", 2_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"archive/data/{index}", bytes(700_000))
    assert path.stat().st_size < 10_000
    assert "has 2,100,000 bytes, unpacked, expected at most 2,000,000" in message_of(path)


def test_a_sparse_file_of_any_size_is_rejected_unread(path):
    with path.open("wb") as file:
        file.truncate(50_000_000_000)
    assert "has 50,000,000,000 bytes" in message_of(path)


def test_a_pickle_of_too_many_names_is_rejected_unread(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}" + b"0" * 16_000_000)
    assert "bytes of names, expected at most 16,000,000" in message_of(path)
