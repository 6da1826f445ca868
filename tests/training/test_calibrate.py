"""The temperature, against logits whose best one is known; the command that fits it for given weights."""

import numpy as np
import orjson
import pytest
import torch

from training.calibrate import ReliabilityBin, expected_calibration_error, fit_temperature, main, reliability
from training.data import load_dataset, save_dataset
from training.errors import ParameterError, WeightsError
from training.evaluate import main as evaluate
from training.evaluate import read_evaluation
from training.export import describe
from training.model import ModelParams, build_classifier, predict_logits
from training.weights import load_classifier, save_weights


@pytest.fixture
def data(make_dataset, tmp_path):
    save_dataset(make_dataset(validation=4), tmp_path / "data.npz")
    return tmp_path / "data.npz"


@pytest.fixture
def weights(tmp_path):
    """As trained by other code: a state dict and no record."""
    torch.manual_seed(0)
    file = tmp_path / "weights" / "best_cnn_model.pth"
    save_weights(build_classifier(ModelParams(hidden_width=8, pool_first=False)).network.state_dict(), file)
    return file


def test_weights_from_elsewhere_get_a_record_with_which_they_are_loaded_as_they_were_calibrated(data, weights):
    given = ["model.flip_tta=true", "model.activation=elu", "model.mean=[0.5, 0.5, 0.5]"]
    plain = load_classifier(weights, given)
    main(given, data, weights)
    dataset = load_dataset(data)
    logits = predict_logits(plain, dataset.validation_images)
    found = load_classifier(weights)
    assert found.temperature == fit_temperature(torch.from_numpy(logits), torch.from_numpy(dataset.validation_labels))
    np.testing.assert_array_equal(predict_logits(found, dataset.validation_images), logits)
    record = orjson.loads((weights.parent / "training.json").read_bytes())
    right = float((logits.argmax(1) == dataset.validation_labels).mean())
    assert (record["model"]["flip_tta"], record["validation_accuracy"]) == (True, right)
    # Nobody knows what they were trained on.
    assert describe(weights, "1.0")["data_digest"] is None


def test_what_the_record_said_of_the_training_stays(data, weights):
    main(["model.dropout=0.3"], data, weights)
    path = weights.parent / "training.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"git_commit": "abc", "best_epoch": 7}))
    main(["model.flip_tta=true"], data, weights)
    record = orjson.loads(path.read_bytes())
    assert (record["git_commit"], record["best_epoch"]) == ("abc", 7)
    assert (record["model"]["dropout"], record["model"]["flip_tta"]) == (0.3, True)


def test_metrics_measured_before_are_no_longer_those_of_the_weights(data, weights):
    # Without a record the temperature is 1.
    evaluate([], data, weights)
    assert read_evaluation(weights) is not None
    main([], data, weights)
    assert read_evaluation(weights) is None
    evaluate([], data, weights)
    assert read_evaluation(weights) is not None


def test_other_data_than_they_were_trained_on_are_rejected(data, weights, make_dataset, tmp_path):
    main([], data, weights)
    path = weights.parent / "training.json"
    before = orjson.dumps(orjson.loads(path.read_bytes()) | {"data_digest": make_dataset(seed=1).digest})
    path.write_bytes(before)
    with pytest.raises(WeightsError, match="trained on other data"):
        main([], data, weights)
    assert path.read_bytes() == before


def test_parameters_of_another_section_are_rejected(data, weights):
    with pytest.raises(ParameterError, match="train"):
        main(["train.lr=1"], data, weights)
    assert not (weights.parent / "training.json").exists()


@pytest.fixture(scope="module")
def calibrated():
    """Logits of 50,000 images, and labels drawn from softmax(logits): their temperature is 1."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50_000, 10, generator=generator)
    return logits, torch.multinomial(torch.softmax(logits, 1), 1, generator=generator).squeeze(1)


def probabilities_of(logits):
    return torch.softmax(logits, 1).numpy()


def sure(*confidences):
    """One row an image, which gives class 0 this probability and the other nine the rest."""
    return np.array([[confidence] + [(1 - confidence) / 9] * 9 for confidence in confidences])


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.7, 15.0])
def test_logits_scaled_by_a_factor_give_it_back(calibrated, factor):
    logits, labels = calibrated
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.01)


def test_no_other_temperature_has_a_smaller_loss(calibrated):
    logits, labels = (part[:500] for part in calibrated)

    def loss(temperature):
        return torch.nn.functional.cross_entropy(logits.double() / temperature, labels).item()

    best = fit_temperature(logits, labels)
    assert all(loss(best) < loss(best * factor) for factor in (0.9, 0.999, 1.001, 1.1))


def test_the_temperature_makes_confidences_as_often_right_as_they_say(calibrated):
    logits, labels = 3 * calibrated[0], calibrated[1]
    before = expected_calibration_error(probabilities_of(logits), labels.numpy())
    after = expected_calibration_error(probabilities_of(logits / fit_temperature(logits, labels)), labels.numpy())
    assert before > 0.2
    assert after < 0.01


@pytest.mark.parametrize("scale", [1e-6, 1.0, 50.0, 1e4, 1e30])
def test_a_network_without_a_mistake_gets_a_temperature_in_bounds(scale):
    temperature = fit_temperature(scale * torch.eye(10), torch.arange(10))
    assert 0.05 <= temperature <= 1.0 + 1e-6


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_a_network_that_is_always_wrong_gets_the_highest_temperature(scale):
    assert fit_temperature(scale * torch.eye(10), (torch.arange(10) + 1) % 10) == pytest.approx(20)


def test_logits_that_are_all_equal_are_left_alone():
    assert fit_temperature(torch.full((5, 10), 3.0), torch.arange(5)) == 1.0


def test_one_image_is_enough():
    assert 0.05 <= fit_temperature(torch.randn(1, 10), torch.tensor([3])) <= 20


def test_the_fit_leaves_no_gradient_and_changes_nothing(calibrated):
    logits, labels = calibrated[0][:100].clone().requires_grad_(), calibrated[1][:100]
    before = logits.detach().clone()
    assert isinstance(fit_temperature(logits, labels), float)
    assert logits.grad is None
    assert torch.equal(logits, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_rejected(bad):
    with pytest.raises(ValueError, match=r"finite logits of at least one image, got \(2, 10\)"):
        fit_temperature(torch.tensor([[bad] + [0.0] * 9] * 2), torch.tensor([0, 1]))


def test_no_images_are_rejected():
    with pytest.raises(ValueError, match="at least one image"):
        fit_temperature(torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64))


def test_calibrated_probabilities_have_nearly_no_error(calibrated):
    logits, labels = calibrated
    assert expected_calibration_error(probabilities_of(logits), labels.numpy()) < 0.01


def test_the_error_is_that_counted_by_hand():
    # Two intervals of five: 0.9 sure and right in 2 of 4; 0.5 sure and right in 1 of 1.
    probabilities, labels = sure(0.9, 0.9, 0.9, 0.9, 0.5), np.array([0, 0, 1, 2, 0])
    assert expected_calibration_error(probabilities, labels, bins=5) == pytest.approx((4 * 0.4 + 1 * 0.5) / 5)


def test_too_sure_and_too_unsure_do_not_cancel_out():
    probabilities, labels = sure(0.9, 0.9, 0.5, 0.5), np.array([0, 1, 0, 0])  # 0.4 too sure, 0.5 too unsure
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.45)


def test_images_are_sorted_by_confidence_into_intervals_with_their_upper_end():
    probabilities, labels = sure(0.25, 0.5, 0.625, 0.75, 1.0), np.array([0, 1, 0, 0, 0])  # exact in binary
    assert reliability(probabilities, labels, bins=4) == [
        ReliabilityBin(0.25, 1.0, 1),
        ReliabilityBin(0.5, 0.0, 1),
        ReliabilityBin(0.6875, 1.0, 2),
        ReliabilityBin(1.0, 1.0, 1),
    ]


def test_an_interval_without_images_has_no_metrics():
    parts = reliability(sure(0.95, 1.0), np.array([0, 0]))
    assert parts[:-1] == [ReliabilityBin(None, None, 0)] * 14
    assert (parts[-1].accuracy, parts[-1].images) == (1.0, 2)


def test_a_confidence_that_rounding_lifts_above_one_counts():
    above = np.nextafter(np.float32(1), np.float32(2))
    assert reliability(np.array([[above] + [0] * 9], np.float32), np.array([0]))[-1].images == 1
