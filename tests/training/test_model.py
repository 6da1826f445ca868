"""The networks: sizes by hand, the layout of their weights, and what they reject to be built as."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.errors import ParameterError
from training.model import Classifier, ImprovedCNN, ModelParams, SimpleCNN, build_classifier, build_network, resolve
from training.weights import load_classifier, save_weights

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def conv(inputs, outputs, kernel=3):
    return inputs * outputs * kernel**2 + outputs


def linear(inputs, outputs):
    return inputs * outputs + outputs


SIMPLE = conv(3, 32) + conv(32, 64) + linear(64 * 8 * 8, 512) + linear(512, 10)
IMPROVED = conv(3, 32) + conv(32, 64) + conv(64, 64) + linear(64 * 4 * 4, 512) + linear(512, 10)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (ModelParams("SimpleCNN"), SIMPLE),
        (ModelParams("SimpleCNN", batch_norm=True), SIMPLE + 2 * (32 + 64)),  # a scale and a shift a channel
        (ModelParams("ImprovedCNN"), IMPROVED + 2 * (32 + 64 + 64)),
        (ModelParams("ImprovedCNN", batch_norm=False), IMPROVED),
        (
            ModelParams("SimpleCNN", filters=(5, 7), kernel_size=5, pool_size=3, hidden_width=11),
            conv(3, 5, 5) + conv(5, 7, 5) + linear(7 * 3 * 3, 11) + linear(11, 10),
        ),
        (
            ModelParams("ImprovedCNN", filters=(5, 6, 7), pool_size=1, hidden_width=4, batch_norm=False),
            conv(3, 5) + conv(5, 6) + conv(6, 7) + linear(7 * 32 * 32, 4) + linear(4, 10),
        ),
    ],
)
def test_the_parameters_are_as_many_as_arithmetic_says(params, expected):
    network = build_network(params)
    assert sum(tensor.numel() for tensor in network.parameters()) == expected


def test_the_counts_are_those_of_the_documentation():
    assert (SIMPLE, IMPROVED) == (2_122_186, 586_250)


@pytest.mark.parametrize("name", ["SimpleCNN", "ImprovedCNN"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu"])
def test_one_row_of_ten_logits_an_image_and_the_activation_that_was_asked_for(name, activation):
    network = build_network(ModelParams(name, hidden_width=8, activation=activation))
    assert network(torch.zeros(3, 3, 32, 32)).shape == (3, 10)
    assert type(network.activation).__name__.lower() == activation.replace("_", "")


def test_without_batch_norm_the_state_dict_has_the_five_layers_only():
    layers = ["conv1", "conv2", "conv3", "fc1", "fc2"]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert set(ImprovedCNN(batch_norm=False).state_dict()) == expected
    assert set(SimpleCNN().state_dict()) == {key for key in expected if not key.startswith("conv3")}


def test_batch_norm_adds_keys_of_its_own_and_no_other():
    extra = set(ImprovedCNN().state_dict()) - set(ImprovedCNN(batch_norm=False).state_dict())
    assert {key.split(".")[0] for key in extra} == {"bn1", "bn2", "bn3"}


def with_order(pool_first, batch_norm, activation):
    """A network with weights of its seed, and statistics as after training, some of them negative."""
    torch.manual_seed(0)
    params = ModelParams(
        "ImprovedCNN", (4, 4, 4), hidden_width=8, activation=activation, batch_norm=batch_norm, pool_first=pool_first
    )
    network = build_network(params).eval()
    for name, tensor in network.state_dict().items():
        if name.startswith("bn") and tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.5, 2.0) if "var" in name else torch.nn.init.normal_(tensor)
    return network


@pytest.mark.parametrize(
    ("batch_norm", "activation", "same"),
    [(False, "relu", True), (False, "elu", True), (False, "gelu", False), (True, "relu", False)],
)
def test_the_order_of_pool_and_activation_matters_where_the_documentation_says(batch_norm, activation, same):
    images = torch.randn(8, 3, 32, 32)
    with torch.inference_mode():
        first, last = (with_order(order, batch_norm, activation)(images) for order in (True, False))
    assert torch.allclose(first, last, atol=1e-6) is same


def test_dropout_acts_in_training_and_not_in_evaluation():
    torch.manual_seed(0)
    network = ImprovedCNN(hidden_width=64, batch_norm=False, dropout=0.5)
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(network.train()(images), network(images))
    assert torch.equal(network.eval()(images), network(images))


class TutorialCNN(nn.Module):
    """The network as a course would write it, with nothing of this project in it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(64 * 4 * 4, 512)
        self.fc2 = nn.Linear(512, 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = self.pool(F.relu(self.conv3(x)))
        x = x.view(-1, 64 * 4 * 4)
        x = self.dropout(F.relu(self.fc1(x)))
        return self.fc2(x)


def test_weights_of_a_tutorial_network_load_and_give_the_same_logits(tmp_path):
    torch.manual_seed(1)
    tutorial = TutorialCNN().eval()
    torch.save(tutorial.state_dict(), tmp_path / "best_cnn_model.pth")
    classifier = load_classifier(tmp_path / "best_cnn_model.pth")
    images = torch.randn(16, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(classifier.network(images), tutorial(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "SimpleCNN", "filters": (8, 8, 8)}, r"model\.filters is \[8, 8, 8\]; SimpleCNN needs 2"),
        ({"name": "ImprovedCNN", "filters": (8, 8)}, r"ImprovedCNN needs 3"),
        ({"filters": (8, 0, 8)}, r"model\.filters .* at least 1"),
        ({"filters": ()}, r"model\.filters"),
        ({"kernel_size": 4}, r"model\.kernel_size is 4; it must be odd"),
        ({"kernel_size": 0}, r"model\.kernel_size is 0"),
        ({"kernel_size": -3}, r"model\.kernel_size is -3"),
        ({"kernel_size": 67}, r"model\.kernel_size is 67, more than twice the 32 pixels that conv1 sees"),
        ({"kernel_size": 35}, r"the 16 pixels that conv2 sees \(32 → 16\)"),
        ({"pool_size": 4, "kernel_size": 7}, r"the 2 pixels that conv3 sees \(32 → 8 → 2\)"),
        ({"pool_size": 0}, r"model\.pool_size is 0"),
        ({"pool_size": -1}, r"model\.pool_size is -1"),
        ({"pool_size": 4}, r"pooling 3 times leaves nothing of 32×32 pixels \(32 → 8 → 2 → 0\)"),
        ({"name": "SimpleCNN", "pool_size": 6}, r"pooling 2 times leaves nothing .*\(32 → 5 → 0\)"),
        ({"pool_size": 33}, r"pooling 1 times leaves nothing"),
        ({"hidden_width": 0}, r"model\.hidden_width is 0"),
        ({"dropout": 1.0}, r"model\.dropout is 1\.0"),
        ({"dropout": -0.1}, r"model\.dropout is -0\.1"),
        ({"activation": "tanh"}, r"model\.activation is 'tanh'; known: relu"),
    ],
)
def test_a_network_that_cannot_be_is_rejected_with_the_reason(changes, reason):
    with pytest.raises(ParameterError, match=reason):
        build_network(ModelParams(**changes))


@pytest.mark.parametrize("changes", [{"mean": (0.5, 0.5)}, {"std": (0.5,) * 4}, {"std": (0.2, 0.0, 0.2)}])
def test_a_normalisation_that_does_not_fit_three_channels_is_rejected(changes):
    with pytest.raises(ParameterError, match=r"model\.(mean|std)"):
        ModelParams(**changes)


def test_the_edge_of_the_possible_still_runs():
    for params in (
        ModelParams("SimpleCNN", filters=(1, 1), pool_size=5, hidden_width=1, kernel_size=1),
        ModelParams("ImprovedCNN", filters=(1, 1, 1), pool_size=3, hidden_width=1),
        ModelParams("ImprovedCNN", filters=(1, 1, 1), pool_size=2, kernel_size=17, hidden_width=1),
    ):
        assert build_network(params).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_nulls_become_the_named_networks_own_values_and_given_values_stay():
    simple = resolve(ModelParams("SimpleCNN", hidden_width=7))
    assert (simple.filters, simple.dropout, simple.batch_norm, simple.hidden_width) == ((32, 64), 0.0, False, 7)
    improved = resolve(ModelParams("ImprovedCNN", dropout=0.0, batch_norm=False))
    assert (improved.filters, improved.dropout, improved.batch_norm) == ((32, 64, 64), 0.0, False)


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return build_classifier(ModelParams("ImprovedCNN", filters=(4, 4, 4), hidden_width=8)).eval()


@pytest.fixture
def pictures():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))


def test_bytes_and_floats_of_the_same_image_give_the_same_probabilities(classifier, pictures):
    with torch.inference_mode():
        assert torch.equal(classifier(pictures), classifier(pictures.float()))


def test_probabilities_are_float32_rows_that_sum_to_one(classifier, pictures):
    with torch.inference_mode():
        probabilities = classifier(pictures)
    assert (probabilities.dtype, probabilities.shape) == (torch.float32, (6, 10))
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6), rtol=0, atol=1e-6)
    assert not torch.allclose(probabilities[0], probabilities[1])


def test_the_network_sees_normalised_pixels_with_the_channels_first(pictures):
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 10)

    Classifier(Spy(), MEAN, STD)(pictures)
    scaled = pictures.numpy().astype(np.float64) / 255
    expected = np.moveaxis((scaled - np.array(MEAN)) / np.array(STD), 3, 1)
    assert seen[0].shape == (6, 3, 32, 32)
    np.testing.assert_allclose(seen[0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_image_with_its_channels_swapped_is_another_image(classifier, pictures):
    with torch.inference_mode():
        assert not torch.allclose(classifier(pictures), classifier(pictures.flip(3)), atol=1e-4)


def test_with_flip_tta_an_image_and_its_flipped_image_get_the_same_answer_by_the_mean_of_their_logits(pictures):
    torch.manual_seed(0)
    plain = build_classifier(ModelParams(hidden_width=8)).eval()
    averaging = build_classifier(ModelParams(hidden_width=8, flip_tta=True)).eval()
    averaging.load_state_dict(plain.state_dict())
    scripted = torch.jit.script(averaging)
    with torch.inference_mode():
        flipped = pictures.flip(2)  # (N, H, W, C): left and right
        expected = (plain.logits(pictures) + plain.logits(flipped)) / 2
        assert not torch.allclose(plain.logits(pictures), expected, atol=1e-4)
        torch.testing.assert_close(averaging.logits(pictures), expected)
        torch.testing.assert_close(averaging(flipped), averaging(pictures))
        torch.testing.assert_close(scripted(pictures), averaging(pictures))


def test_a_weights_file_holds_neither_mean_nor_std(classifier, tmp_path):
    assert not {"mean", "std"} & set(classifier.state_dict())
    save_weights(classifier.network.state_dict(), tmp_path / "weights.pth")
    assert set(torch.load(tmp_path / "weights.pth", weights_only=True)) == set(classifier.network.state_dict())
