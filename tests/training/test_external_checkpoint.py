"""External checkpoints: what training scripts save is found and loaded to the same answers; other files are named."""

import argparse
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
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.errors import WeightsError
from training.model import ModelParams, build_classifier, build_network
from training.weights import load_classifier, load_weights

PARAMS = ModelParams("ImprovedCNN", filters=(2, 3, 4), hidden_width=5, pool_first=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "their weights.pth"


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = build_network(PARAMS)
    for name, tensor in made.state_dict().items():  # nothing that a fresh network has by itself
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    return made.eval()


@pytest.fixture
def check(network, path, capsys):
    """Save what a script would save, load it, and compare answers; return what was said."""

    def run(content, tolerance=1e-6):
        torch.save(content, path)
        images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
        expected = build_classifier(PARAMS)
        expected.network.load_state_dict(network.state_dict())
        capsys.readouterr()
        with torch.inference_mode():
            torch.testing.assert_close(
                load_classifier(path)(images), expected.eval()(images), atol=tolerance, rtol=tolerance
            )
        return capsys.readouterr().out.strip().removeprefix(f"{path}: ")

    return run


def prefixed(state, prefix):
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def test_a_plain_state_dict_is_taken_without_a_word(check, network):
    assert check(network.state_dict()) == ""
    assert check(dict(network.state_dict())) == ""


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "model.net._orig_mod."],
)
def test_prefixes_are_taken_off_and_named(check, network, prefix):
    assert check(prefixed(network.state_dict(), prefix)) == f"took its state dict, without the prefix {prefix!r}"


@pytest.mark.parametrize(
    "key", ["model_state_dict", "state_dict", "model", "net", "network", "weights", "whatever they called it"]
)
def test_wrappers_are_opened_and_named(check, network, key):
    said = check({"epoch": 7, key: network.state_dict(), "optimizer_state_dict": {"state": {}, "param_groups": []}})
    assert said == f"took the state dict under {key!r}"


def test_real_wrappers_of_pytorch(check, network):
    assert "'module.'" in check(nn.DataParallel(network).state_dict())
    compiled: Any = torch.compile(network)
    assert "'_orig_mod.'" in check(compiled.state_dict())
    assert "'module._orig_mod.'" in check({"state_dict": nn.DataParallel(compiled).state_dict()})
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    assert "left out: n_averaged" in check(average.state_dict())


def test_one_compiled_layer_within_a_network(check, network):
    state = {name.replace("conv2.", "conv2._orig_mod."): tensor for name, tensor in network.state_dict().items()}
    assert check(state) == ""


def test_a_checkpoint_of_lightning(check, network):
    state = prefixed(network.state_dict(), "model.") | {"criterion.weight": torch.ones(10)}
    content = {"epoch": 3, "global_step": 900, "pytorch-lightning_version": "2.5.0", "state_dict": state}
    content |= {"optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}], "hyper_parameters": {"lr": 0.1}}
    assert check(content) == (
        "took the state dict under 'state_dict', without the prefix 'model.', left out: criterion.weight"
    )


def test_a_checkpoint_with_the_scripts_arguments(check, network):
    said = check({"args": argparse.Namespace(lr=0.1, arch="cnn"), "model": network.state_dict(), "best_acc1": 71.5})
    assert said == "took the state dict under 'model'"


def test_entries_beside_the_tensors_are_left_out_and_named(check, network):
    assert check(network.state_dict() | {"epoch": 3, "optimizer": {"state": {}}}) == (
        "took its state dict, left out: epoch, optimizer"
    )


def test_nested_wrappers(check, network):
    content = {"checkpoint": {"trainer": {"model": {"state_dict": network.state_dict()}}}}
    assert check(content) == "took the state dict under 'checkpoint.trainer.model.state_dict'"


def other_state(network):
    return {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "averaged_model", "best_model"])
def test_the_average_or_the_best_is_taken_and_the_other_named(check, network, key):
    said = check({"state_dict": other_state(network), key: network.state_dict()})
    assert said == f"took the state dict under {key!r}, not state_dict"


def test_an_average_of_the_parameters_alone_is_passed_over(check, network):
    shadow = {name: tensor + 1 for name, tensor in network.named_parameters()}
    said = check({"model": network.state_dict(), "ema": {"decay": 0.999, "shadow": shadow}})
    assert said == "took the state dict under 'model', not ema.shadow"


def test_an_optimizer_that_names_its_state_is_no_network(check, network):
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    assert (
        check({"model": network.state_dict(), "optimizer": {"exp_avg": state}}) == "took the state dict under 'model'"
    )


def test_our_own_checkpoint_gives_its_best_weights(check, network):
    content = {"network": other_state(network), "average": None, "best_weights": network.state_dict(), "history": []}
    assert check(content) == "took the state dict under 'best_weights', not network"


@pytest.mark.parametrize(
    "names", [("student.", "teacher."), ("generator.", "discriminator.")], ids=["distillation", "two networks"]
)
def test_two_networks_of_which_either_may_be_meant_are_rejected_with_the_line_that_takes_one(network, path, names):
    torch.save(prefixed(network.state_dict(), names[0]) | prefixed(other_state(network), names[1]), path)
    with pytest.raises(WeightsError, match="several state dicts") as caught:
        load_weights(path)
    line = str(caught.value).partition("for example ")[2]
    exec(line.replace("best_cnn_model.pth", str(path)), {"torch": torch})
    assert load_weights(path).keys() == network.state_dict().keys()


def test_two_keys_of_which_either_may_be_meant_are_rejected(network, path):
    torch.save({"first": network.state_dict(), "second": other_state(network)}, path)
    with pytest.raises(WeightsError, match=r"several state dicts \(first, second\).*\['first'\]"):
        load_weights(path)


def test_twice_the_same_is_no_question(check, network):
    assert "took the state dict under 'model'" in check({"model": network.state_dict(), "copy": network.state_dict()})


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        pytest.param(lambda tensor: tensor.half(), 5e-2, id="half"),
        pytest.param(lambda tensor: tensor.bfloat16(), 2e-1, id="bfloat16"),
        pytest.param(lambda tensor: tensor.double(), 1e-6, id="double"),
        pytest.param(lambda tensor: torch.stack([tensor, tensor])[1], 1e-6, id="a view of a shared storage"),
        pytest.param(lambda tensor: tensor.flip(0).contiguous().flip(0).mT.contiguous().mT, 1e-6, id="strides"),
        pytest.param(nn.Parameter, 1e-6, id="parameters"),
    ],
)
def test_tensors_of_other_types_and_strides(check, network, change, tolerance):
    state = {
        name: change(tensor) if tensor.is_floating_point() and tensor.dim() > 1 else tensor
        for name, tensor in network.state_dict().items()
    }
    assert check(state, tolerance) == ""


def test_channels_last_weights(check, network):
    assert check(network.to(memory_format=torch.channels_last).state_dict()) == ""


def test_tensors_that_were_saved_on_a_gpu(check, network, path, monkeypatch):
    # What torch.save writes for a tensor of cuda:0, without a GPU at hand.
    tag = torch.serialization.location_tag
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0" if tag(storage) else None)
    assert check(network.state_dict()) == ""
    assert b"cuda:0" in path.read_bytes()


def test_a_state_dict_without_counters_of_batches(check, network):
    state = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    assert check(state) == ""


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        pytest.param("fc1.weight", torch.zeros(1).expand(5, 10**12), "5,000,000,0", id="huge without data"),
        pytest.param("fc1.weight", torch.ones(5, 64, dtype=torch.int8), "int8", id="integers"),
        pytest.param("fc1.weight", torch.full((5, 64), torch.nan), "NaN", id="NaN"),
        pytest.param("fc1.weight", torch.full((5, 64), 1e300, dtype=torch.float64), "beyond float32", id="1e300"),
        pytest.param("fc1.weight", torch.zeros(5, 64, device="meta"), "no data", id="meta"),
        pytest.param("fc1.weight", torch.zeros(5, 64).to_sparse(), "sparse", id="sparse"),
        pytest.param("conv4.weight", torch.zeros(5, 4, 3, 3), "does not fit ImprovedCNN", id="a layer more"),
    ],
)
def test_tensors_that_no_network_here_has_are_rejected_in_one_line(network, path, name, tensor, message):
    torch.save(network.state_dict() | {name: tensor}, path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_classifier(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_another_network_in_a_wrapper_is_rejected_with_what_it_lacks(path):
    torch.save({"state_dict": {"module.features.0.weight": torch.zeros(3)}, "epoch": 1}, path)
    with pytest.raises(WeightsError, match=r"of another network: it lacks conv1\.weight"):
        load_classifier(path)


def test_a_checkpoint_of_more_entries_than_a_network_has_is_rejected(network, path):
    content: dict[str, Any] = {"model": network.state_dict()}
    content["log"] = {str(index): {} for index in range(100_001)}
    torch.save(content, path)
    with pytest.raises(WeightsError, match="more than 100,000 entries"):
        load_weights(path)


def test_a_dict_that_holds_itself_ends(check, network):
    content: dict[str, Any] = {"model": network.state_dict()}
    content["self"] = content
    assert check(content) == "took the state dict under 'model'"


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
