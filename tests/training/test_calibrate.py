"""Weights that are there already get a temperature, and a record that says how they are asked."""

import numpy as np
import orjson
import pytest
import torch

from training.calibrate import main
from training.calibration import fit_temperature
from training.data import load_dataset, save_dataset
from training.errors import ParameterError, WeightsError
from training.evaluate import main as evaluate
from training.evaluate import predict_logits, read_evaluation
from training.export import describe
from training.model import ModelParams, build_classifier
from training.weights import load_classifier, save_weights


@pytest.fixture
def data(make_dataset, tmp_path):
    save_dataset(make_dataset(validation=4), tmp_path / "data.npz")
    return tmp_path / "data.npz"


@pytest.fixture
def weights(tmp_path):
    """As trained elsewhere: a state dict and no record."""
    torch.manual_seed(0)
    file = tmp_path / "weights" / "best_cnn_model.pth"
    save_weights(build_classifier(ModelParams(hidden_width=8, pool_first=False)).network.state_dict(), file)
    return file


def test_weights_from_elsewhere_get_a_record_with_which_they_are_loaded_as_they_were_calibrated(data, weights):
    given = ["model.mirror=true", "model.activation=elu", "model.mean=[0.5, 0.5, 0.5]"]
    plain = load_classifier(weights, given)
    main(given, data, weights)
    dataset = load_dataset(data)
    logits = predict_logits(plain, dataset.validation_images)
    found = load_classifier(weights)
    assert found.temperature == fit_temperature(torch.from_numpy(logits), torch.from_numpy(dataset.validation_labels))
    np.testing.assert_array_equal(predict_logits(found, dataset.validation_images), logits)
    record = orjson.loads((weights.parent / "training.json").read_bytes())
    right = float((logits.argmax(1) == dataset.validation_labels).mean())
    assert (record["model"]["mirror"], record["validation_accuracy"]) == (True, right)
    # Nobody knows what they were trained on.
    assert describe(weights, "1.0")["data_digest"] is None


def test_what_the_record_said_of_the_training_stays(data, weights):
    main(["model.dropout=0.3"], data, weights)
    path = weights.parent / "training.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"git_commit": "abc", "best_epoch": 7}))
    main(["model.mirror=true"], data, weights)
    record = orjson.loads(path.read_bytes())
    assert (record["git_commit"], record["best_epoch"]) == ("abc", 7)
    assert (record["model"]["dropout"], record["model"]["mirror"]) == (0.3, True)


def test_figures_measured_before_are_no_longer_those_of_the_weights(data, weights):
    # Without a record the temperature is 1.
    evaluate([], data, weights)
    assert read_evaluation(weights) is not None
    main([], data, weights)
    assert read_evaluation(weights) is None
    evaluate([], data, weights)
    assert read_evaluation(weights) is not None


def test_other_data_than_they_were_trained_on_are_refused(data, weights, make_dataset, tmp_path):
    main([], data, weights)
    path = weights.parent / "training.json"
    before = orjson.dumps(orjson.loads(path.read_bytes()) | {"data_digest": make_dataset(seed=1).digest})
    path.write_bytes(before)
    with pytest.raises(WeightsError, match="trained on other data"):
        main([], data, weights)
    assert path.read_bytes() == before


def test_parameters_of_another_section_are_refused(data, weights):
    with pytest.raises(ParameterError, match="train"):
        main(["train.lr=1"], data, weights)
    assert not (weights.parent / "training.json").exists()
