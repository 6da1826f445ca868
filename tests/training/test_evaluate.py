"""The figures, on probabilities small enough to count by hand."""

import math

import numpy as np
import orjson
import pytest
import torch

from training.data import save_dataset
from training.errors import ParameterError, WeightsError
from training.evaluate import (
    digest_file,
    evaluate,
    main,
    predict_probabilities,
    read_evaluation,
    wilson_interval,
)
from training.model import ModelParams, build_classifier
from training.weights import save_weights


def rows(*choices):
    """One row a picture: (predicted class, its probability), the rest shared by the other nine."""
    table = np.zeros((len(choices), 10), dtype=np.float32)
    for row, (index, probability) in zip(table, choices, strict=True):
        row[:] = (1 - probability) / 9
        row[index] = probability
    return table


def test_figures_are_those_counted_by_hand(classes):
    probabilities = rows((0, 0.5), (0, 0.8), (1, 0.55), (3, 0.4), (9, 1.0))
    labels = np.array([0, 0, 0, 3, 2])
    figures = evaluate(probabilities, labels, "data", "weights")
    assert figures.accuracy == pytest.approx(3 / 5)
    assert figures.images == 5
    assert figures.class_accuracy == pytest.approx(dict.fromkeys(classes, 0.0) | {"airplane": 2 / 3, "cat": 1.0})
    counted = {(0, 0): 2, (0, 1): 1, (3, 3): 1, (2, 9): 1}
    assert figures.confusion == [[counted.get((true, got), 0) for got in range(10)] for true in range(10)]
    losses = [-math.log(p) for p in (0.5, 0.8, 0.05, 0.4, 1e-12)]  # a probability of 0 counts as 1e-12
    assert figures.loss == pytest.approx(sum(losses) / 5, rel=1e-5)
    assert (figures.data_digest, figures.weights_digest) == ("data", "weights")
    assert (figures.accuracy_low, figures.accuracy_high) == wilson_interval(3, 5)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        # Brown, Cai and DasGupta 2001; statsmodels.stats.proportion.proportion_confint(method="wilson")
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (7500, 10_000, 0.7414, 0.7584),
    ],
)
def test_the_interval_is_wilsons(right, count, low, high):
    assert wilson_interval(right, count) == pytest.approx((low, high), abs=6e-5)


def test_the_interval_never_leaves_zero_to_one():
    for count in (*range(1, 300), 10_000, 12_345):
        assert wilson_interval(0, count)[0] >= 0
        assert wilson_interval(count, count)[1] <= 1


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return build_classifier(ModelParams("SimpleCNN", filters=(2, 3), hidden_width=4)).eval()


@pytest.fixture
def weights(classifier, tmp_path):
    path = tmp_path / "best_cnn_model.pth"
    save_weights(classifier.network.state_dict(), path)
    return path


def test_predictions_come_in_the_order_of_the_pictures_over_all_batches(classifier):
    images = np.random.default_rng(0).integers(0, 256, (1007, 32, 32, 3), dtype=np.uint8)  # 500, 500 and 7
    probabilities = predict_probabilities(classifier, images)
    assert probabilities.shape == (1007, 10)
    for index in (0, 499, 500, 1006):
        alone = predict_probabilities(classifier, images[index : index + 1])[0]
        np.testing.assert_allclose(probabilities[index], alone, rtol=1e-4, atol=1e-6)


def test_the_command_writes_the_figures_of_the_test_part_beside_the_weights(
    classifier, weights, make_dataset, tmp_path
):
    dataset = make_dataset(test=3)
    save_dataset(dataset, tmp_path / "data.npz")
    main(data=tmp_path / "data.npz", weights=weights)
    written = orjson.loads((tmp_path / "evaluation.json").read_bytes())
    right = predict_probabilities(classifier, dataset.test_images).argmax(1) == dataset.test_labels
    assert written["images"] == 30
    assert written["accuracy"] == pytest.approx(right.mean())
    assert written["data_digest"] == dataset.digest
    assert written["weights_digest"] == digest_file(weights)
    assert read_evaluation(weights) == written


def test_figures_of_other_weights_are_ignored(weights, tmp_path):
    figures = {"weights_digest": digest_file(weights), "accuracy": 0.5}
    (tmp_path / "evaluation.json").write_bytes(orjson.dumps(figures))
    assert read_evaluation(weights) == figures
    weights.write_bytes(weights.read_bytes() + b"x")
    assert read_evaluation(weights) is None


def test_no_figures_are_none(weights):
    assert read_evaluation(weights) is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"3"])
def test_figures_that_are_none_are_refused_by_name(weights, tmp_path, content):
    (tmp_path / "evaluation.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"evaluation\.json"):
        read_evaluation(weights)


def test_an_override_that_it_does_not_read_is_refused(weights, tmp_path):
    with pytest.raises(ParameterError, match="is not read here"):
        main(["train.epochs=3"], tmp_path / "data.npz", weights)
