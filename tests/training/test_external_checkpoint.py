"""External checkpoints: what training scripts save is found, loaded to the same answers, and said."""

import argparse
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.errors import WeightsError
from training.model import ModelParams, build_classifier, build_network
from training.weights import load_classifier, load_weights

PARAMS = ModelParams("ImprovedCNN", filters=(2, 3, 4), hidden_width=5, pool_first=False)


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = build_network(PARAMS)
    for name, tensor in made.state_dict().items():  # nothing that a fresh network has by itself
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    return made.eval()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "their.pth"


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


def test_another_network_in_a_wrapper_is_told_what_it_lacks(path):
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
