"""Weights files: whole, harmless, and of the network that they claim."""

import pickle

import numpy as np
import orjson
import pytest
import torch

from cifar.common.errors import InvalidFile
from cifar.common.training_record import read_record
from training.errors import ParameterError, WeightsError
from training.model import ModelParams, build_classifier, build_network, resolve
from training.weights import load_classifier, load_weights, params_of_shapes, plain_values, save_weights

SMALL = ModelParams("SimpleCNN", filters=(2, 3), hidden_width=4)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "best_cnn_model.pth"
    save_weights(build_network(SMALL).state_dict(), path)
    return path


def write_record(weights, params, **changes):
    record = {"model": plain_values(resolve(params)) | changes}
    (weights.parent / "training.json").write_bytes(orjson.dumps(record))


def test_saved_weights_load_with_plain_pytorch_and_are_the_same(weights):
    torch.manual_seed(0)
    expected = build_network(SMALL).state_dict()
    plain = torch.load(weights, weights_only=True)
    assert plain.keys() == expected.keys()
    for name, tensor in load_weights(weights).items():
        assert torch.equal(tensor, expected[name])
        assert torch.equal(tensor, plain[name])


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_a_file_that_would_run_code_is_rejected_and_runs_none(tmp_path, form):
    path, marker = tmp_path / "weights.pth", tmp_path / "ran"
    content = {"conv1.weight": Trap(marker)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        load_weights(path)
    assert not marker.exists()
    if form == "bare pickle":  # the trap works
        pickle.loads(path.read_bytes())
        assert marker.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_rejected_by_name(weights, share):
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    with pytest.raises(WeightsError, match=r"best_cnn_model\.pth"):
        load_weights(weights)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_is_rejected_by_name_or_still_holds_tensors(weights, legacy):
    if legacy:
        torch.save(load_weights(weights), weights, _use_new_zipfile_serialization=False)
    whole = weights.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(generator.integers(0, min(len(whole), 900)))] = int(generator.integers(0, 256))
        weights.write_bytes(damaged)
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in load_weights(weights).values())
        except WeightsError as error:
            assert "best_cnn_model.pth" in str(error)


def test_a_missing_file_is_rejected_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth is missing; make it: make train"):
        load_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(torch.zeros(3), id="a tensor"),
        pytest.param([torch.zeros(3)], id="a list"),
        pytest.param({}, id="an empty dict"),
        pytest.param({"conv1.weight": 3}, id="a dict of numbers"),
        pytest.param({"model": {"conv1.weight": "zeros"}, "epoch": 3}, id="a checkpoint without tensors"),
        pytest.param({1: torch.zeros(3)}, id="tensors without names"),
    ],
)
def test_a_file_of_something_else_is_rejected(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth holds .*state dict"):
        load_weights(tmp_path / "weights.pth")


ARCHITECTURES = [
    ModelParams("SimpleCNN"),
    ModelParams("SimpleCNN", batch_norm=True, filters=(3, 5)),
    ModelParams("SimpleCNN", filters=(4, 4), pool_size=1, hidden_width=3),
    ModelParams("SimpleCNN", filters=(4, 4), pool_size=5, kernel_size=5, hidden_width=3),
    ModelParams("ImprovedCNN"),
    ModelParams("ImprovedCNN", batch_norm=False),
    ModelParams("ImprovedCNN", filters=(2, 3, 5), pool_size=3, kernel_size=1, hidden_width=7),
]


@pytest.mark.parametrize("params", ARCHITECTURES)
def test_shapes_tell_the_architecture(params, tmp_path):
    found = params_of_shapes(build_network(params).state_dict(), tmp_path)
    expected = plain_values(resolve(params))
    for key in ("name", "filters", "kernel_size", "pool_size", "hidden_width", "batch_norm"):
        assert found[key] == expected[key]


@pytest.mark.parametrize("params", ARCHITECTURES[1:])
def test_weights_without_a_record_give_the_same_probabilities(params, tmp_path):
    classifier = build_classifier(params).eval()
    save_weights(classifier.network.state_dict(), tmp_path / "weights.pth")
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(load_classifier(tmp_path / "weights.pth")(images), classifier(images))


def test_weights_of_another_network_are_rejected_with_what_they_lack(tmp_path):
    torch.save({"layer1.weight": torch.zeros(3), "conv1.weight": torch.zeros(2, 3, 3, 3)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"lacks conv2\.weight, fc1\.weight, fc2\.weight"):
        load_classifier(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fc1.weight", (3,)),
        ("fc1.weight", (4, 0)),
        ("fc1.weight", (4, 3 * 7 * 7)),
        ("conv1.weight", ()),
        ("conv2.weight", (0, 2, 3, 3)),
        ("conv1.weight", (2, 4, 3, 3)),
        ("conv2.weight", (3, 2, 5, 5)),
        ("fc2.weight", (100, 4)),
    ],
)
def test_shapes_that_fit_no_network_are_rejected(weights, name, shape):
    torch.save(load_weights(weights) | {name: torch.zeros(shape)}, weights)
    with pytest.raises(WeightsError, match=r"best_cnn_model\.pth"):
        load_classifier(weights)


def test_the_record_beside_the_weights_tells_what_shapes_do_not(weights):
    write_record(weights, SMALL, activation="gelu", mean=[0.1, 0.2, 0.3])
    classifier = load_classifier(weights)
    assert isinstance(classifier.network.activation, torch.nn.GELU)
    torch.testing.assert_close(classifier.mean, torch.tensor([25.5, 51.0, 76.5]))


def test_a_record_of_older_weights_is_read_by_its_own_names(weights):
    old = {key: value for key, value in plain_values(resolve(SMALL)).items() if key != "flip_tta"} | {"mirror": True}
    record = {"model": old, "train": {"average_decay": 0.9}}
    (weights.parent / "training.json").write_bytes(orjson.dumps(record))
    assert load_classifier(weights).flip_tta
    read = read_record(weights)
    assert read is not None
    assert read["train"] == {"ema_decay": 0.9}
    assert not load_classifier(weights, ["model.flip_tta=false"]).flip_tta


def test_the_temperature_of_the_record_divides_the_logits(weights):
    write_record(weights, SMALL)
    record = orjson.loads((weights.parent / "training.json").read_bytes())
    assert load_classifier(weights).temperature == 1.0
    (weights.parent / "training.json").write_bytes(orjson.dumps(record | {"temperature": 0.25}))
    classifier = load_classifier(weights)
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = torch.softmax(classifier.logits(images) * 4, dim=1)
        torch.testing.assert_close(classifier(images), expected)
        torch.testing.assert_close(torch.jit.script(classifier)(images), expected)


def test_weights_without_a_record_are_read_in_the_usual_order_of_layers(weights):
    assert vars(load_classifier(weights).network)["pool_first"] is False


def test_an_override_resumes_top_of_record_and_shapes(weights):
    assert isinstance(load_classifier(weights, ["model.activation=elu"]).network.activation, torch.nn.ELU)
    write_record(weights, SMALL, activation="gelu")
    assert isinstance(load_classifier(weights, ["model.activation=elu"]).network.activation, torch.nn.ELU)
    with pytest.raises(ParameterError, match="activation"):
        load_classifier(weights, ["model.activation=tanh"])


def test_a_record_of_another_network_is_rejected(weights):
    write_record(weights, ModelParams("ImprovedCNN"))
    with pytest.raises(WeightsError, match="does not fit ImprovedCNN"):
        load_classifier(weights)


def test_a_classifier_comes_ready_to_predict(weights):
    assert not load_classifier(weights).training


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"{}", b'{"model": 3}'])
def test_a_record_that_is_none_is_rejected_by_name(weights, content):
    (weights.parent / "training.json").write_bytes(content)
    with pytest.raises(InvalidFile, match=r"training\.json"):
        load_classifier(weights)


def test_weights_trained_elsewhere_have_no_record(weights):
    assert read_record(weights) is None
