"""The metrics, on logits small enough to count by hand, and the command as a whole on tiny data."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
import torch

from cifar.common.console import console
from cifar.common.errors import InvalidFile
from cifar.common.files import digest_file
from training.calibrate import expected_calibration_error
from training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from training.data import save_dataset
from training.errors import ParameterError, TrainingError, WeightsError
from training.evaluate import HEADLINE_METRICS, evaluate, main, measure_corruptions, read_evaluation, wilson_interval
from training.model import (
    Classifier,
    ModelParams,
    build_classifier,
    predict_logits,
    predict_probabilities,
    resolve,
    softmax,
)
from training.weights import plain_values, save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = [
    *("accuracy", "accuracy_low", "accuracy_high", "top2_accuracy", "loss"),
    *("calibration_error", "calibration_error_before", "temperature", "corrupted_accuracy"),
    *("classes", "confusion", "reliability", "corruptions", "images", "data_digest", "weights_digest"),
]
SMALL = ModelParams("SimpleCNN", filters=(2, 3), hidden_width=4)
CORRUPTED = {"fog": [0.9, 0.7], "contrast": [0.5, 0.1]}


def logits_of(*choices):
    """One row an image: (predicted class, its probability), the rest shared by the other nine; at temperature 1."""
    table = np.zeros((len(choices), 10), dtype=np.float32)
    for row, (index, probability) in zip(table, choices, strict=True):
        row[:] = math.log((1 - probability) / 9)
        row[index] = math.log(probability)
    return table


def metrics_of(choices, labels, temperature=1.0):
    return evaluate(logits_of(*choices), np.array(labels), temperature, CORRUPTED, "data", "weights")


@pytest.fixture
def counted():
    return metrics_of([(0, 0.5), (0, 0.8), (1, 0.55), (3, 0.4), (9, 0.99)], [0, 0, 0, 3, 2])


def test_accuracy_and_loss_are_those_counted_by_hand(counted):
    assert counted.accuracy == pytest.approx(3 / 5)
    assert (counted.accuracy_low, counted.accuracy_high) == wilson_interval(3, 5)
    losses = [-math.log(p) for p in (0.5, 0.8, 0.05, 0.4, 0.01 / 9)]
    assert counted.loss == pytest.approx(sum(losses) / 5, rel=1e-5)
    assert (counted.images, counted.data_digest, counted.weights_digest) == (5, "data", "weights")


def test_the_confusion_has_a_row_for_each_true_class(counted):
    pairs = {(0, 0): 2, (0, 1): 1, (3, 3): 1, (2, 9): 1}
    assert counted.confusion == [[pairs.get((true, got), 0) for got in range(10)] for true in range(10)]


def test_precision_and_recall_are_those_counted_by_hand():
    metrics = metrics_of([(0, 0.5), (0, 0.5), (1, 0.5), (0, 0.5), (9, 0.5)], [0, 0, 0, 3, 2])
    of = {name: (one.precision, one.recall) for name, one in metrics.classes.items()}
    assert of["airplane"] == pytest.approx((2 / 3, 2 / 3))
    assert of["automobile"] == (0.0, None)  # predicted, and none is there
    assert of["cat"] == (None, 0.0)  # there, and never predicted
    assert of["ship"] == (None, None)


def test_the_classes_stand_in_the_order_of_their_indices(counted, classes):
    assert tuple(counted.classes) == classes


def test_top2_counts_the_second_most_probable_class_and_not_the_third():
    row = np.array([3, 2, 1, 0, 0, 0, 0, 0, 0, 0], dtype=np.float32)
    metrics = evaluate(np.stack([row] * 4), np.array([0, 1, 2, 1]), 1.0, CORRUPTED, "", "")
    assert (metrics.accuracy, metrics.top2_accuracy) == (0.25, 0.75)


def test_calibration_is_measured_with_the_temperature_and_without():
    # 0.9 sure and right in 1 of 2. At temperature 2 odds of 81 to 1 each become 9 to 1: 9 of 18 shares.
    metrics = metrics_of([(0, 0.9), (0, 0.9)], [0, 1], temperature=2.0)
    assert metrics.temperature == 2.0
    assert metrics.calibration_error_before == pytest.approx(0.4, abs=1e-6)
    assert metrics.calibration_error == pytest.approx(0.0, abs=1e-6)
    (filled,) = [part for part in metrics.reliability if part.images]
    assert (filled.confidence, filled.accuracy, filled.images) == (pytest.approx(0.5), 0.5, 2)
    assert len(metrics.reliability) == 15
    assert metrics.loss == pytest.approx((-math.log(9 / 18) - math.log(1 / 18)) / 2, rel=1e-5)


def test_the_temperature_changes_no_prediction(counted):
    choices, labels = [(0, 0.5), (0, 0.8), (1, 0.55), (3, 0.4), (9, 0.99)], [0, 0, 0, 3, 2]
    softer = metrics_of(choices, labels, temperature=3.0)
    assert (softer.confusion, softer.top2_accuracy) == (counted.confusion, counted.top2_accuracy)


def test_a_loss_beyond_float32_is_finite():
    logits = np.array([[500, *[0] * 9]], dtype=np.float32)  # the true class's probability underflows
    assert evaluate(logits, np.array([1]), 1.0, CORRUPTED, "", "").loss == pytest.approx(500)


def test_the_corrupted_accuracy_is_the_mean_over_corruptions_and_strengths(counted):
    assert counted.corrupted_accuracy == pytest.approx((0.9 + 0.7 + 0.5 + 0.1) / 4)
    assert counted.corruptions == CORRUPTED


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
    return build_classifier(SMALL).eval()


@pytest.fixture
def weights(classifier, tmp_path):
    path = tmp_path / "best_cnn_model.pth"
    save_weights(classifier.network.state_dict(), path)
    return path


@pytest.mark.parametrize("predict", [predict_probabilities, predict_logits])
def test_predictions_come_in_the_order_of_the_images_over_all_batches(classifier, predict):
    images = np.random.default_rng(0).integers(0, 256, (1007, 32, 32, 3), dtype=np.uint8)  # 500, 500 and 7
    predicted = predict(classifier, images)
    assert predicted.shape == (1007, 10)
    for index in (0, 499, 500, 1006):
        alone = predict(classifier, images[index : index + 1])[0]
        np.testing.assert_allclose(predicted[index], alone, rtol=1e-4, atol=1e-5)


def test_what_is_measured_are_the_probabilities_that_are_served(classifier, make_dataset):
    images = make_dataset().test_images
    classifier.temperature = 1.7
    served = predict_probabilities(classifier, images)
    np.testing.assert_array_equal(softmax(predict_logits(classifier, images), 1.7), served)


def test_a_network_that_answers_nan_is_rejected(classifier, make_dataset):
    classifier.network.fc2.bias.data[3] = float("nan")
    with pytest.raises(WeightsError, match="not finite"):
        predict_logits(classifier, make_dataset().test_images)


class LightClassifier(Classifier):
    """Predicts class 0 for an image darker than the middle grey, class 1 for any other."""

    def __init__(self):
        super().__init__(torch.nn.Identity(), mean=(0.0,), std=(1.0,))

    def logits(self, images):
        light = images.float().mean((1, 2, 3)) - 128
        return torch.stack([-light, light, *[torch.full_like(light, -1000)] * 8], dim=1)


def test_each_corruption_is_measured_at_each_strength():
    images = np.full((3, 32, 32, 3), 40, dtype=np.uint8)
    images[2] = 250
    accuracies = measure_corruptions(LightClassifier(), images, np.array([0, 0, 1]))
    assert list(accuracies) == list(CORRUPTIONS)
    assert all(len(of_one) == len(SEVERITIES) for of_one in accuracies.values())
    assert accuracies["contrast"] == [1.0] * 5
    lit = [corrupt(images, "brightness", severity, 0).mean(axis=(1, 2, 3)) > 128 for severity in SEVERITIES]
    assert accuracies["brightness"] == pytest.approx([(row == [False, False, True]).mean() for row in lit])
    assert accuracies["brightness"][0] == 1.0
    assert accuracies["brightness"][-1] == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def evaluated(make_dataset, tmp_path_factory):
    """What the command leaves and says, for three test images of each class and a temperature of 1.6."""
    folder, dataset = tmp_path_factory.mktemp("evaluated"), make_dataset(test=3)
    save_dataset(dataset, folder / "data.npz")
    torch.manual_seed(0)
    classifier = build_classifier(SMALL).eval()
    save_weights(classifier.network.state_dict(), folder / "weights.pth")
    classifier.temperature = 1.6
    record = {"model": plain_values(resolve(SMALL)), "temperature": 1.6}
    (folder / "training.json").write_bytes(orjson.dumps(record))
    with console.capture() as shown:
        main(data=folder / "data.npz", weights=folder / "weights.pth")
    written = orjson.loads((folder / "evaluation.json").read_bytes())
    return SimpleNamespace(folder=folder, dataset=dataset, classifier=classifier, written=written, shown=shown.get())


def test_the_command_writes_the_metrics_of_the_test_part_beside_the_weights(evaluated):
    dataset, classifier, written = evaluated.dataset, evaluated.classifier, evaluated.written
    images, labels, weights = dataset.test_images, dataset.test_labels, evaluated.folder / "weights.pth"
    assert list(written) == KEYS
    headlines = orjson.loads((evaluated.folder / "metrics.json").read_bytes())
    assert headlines == {name: written[name] for name in HEADLINE_METRICS}
    assert written["images"] == 30
    assert written["accuracy"] == pytest.approx((predict_probabilities(classifier, images).argmax(1) == labels).mean())
    assert written["corruptions"] == measure_corruptions(classifier, images, labels)
    assert written["data_digest"] == dataset.digest
    assert written["weights_digest"] == digest_file(weights)
    assert read_evaluation(weights) == written


def test_the_command_measures_with_the_temperature_of_the_weights_record(evaluated):
    written, labels = evaluated.written, evaluated.dataset.test_labels
    served = predict_probabilities(evaluated.classifier, evaluated.dataset.test_images)
    assert written["temperature"] == 1.6
    assert written["calibration_error"] == pytest.approx(expected_calibration_error(served, labels))
    assert written["calibration_error"] != pytest.approx(written["calibration_error_before"])


def test_the_file_holds_plain_records_and_null_where_there_is_no_metric(evaluated, classes):
    written = evaluated.written
    assert list(written["classes"]) == list(classes)
    assert all(list(of_one) == ["precision", "recall"] for of_one in written["classes"].values())
    assert None in [of_one["precision"] for of_one in written["classes"].values()]  # random weights: few are predicted
    assert all(list(part) == ["confidence", "accuracy", "images"] for part in written["reliability"])
    assert {"confidence": None, "accuracy": None, "images": 0} in written["reliability"]
    assert sum(part["images"] for part in written["reliability"]) == 30


def test_the_command_writes_tables_and_images_into_plots(evaluated):
    assert sorted(file.name for file in (evaluated.folder / "plots").iterdir()) == [
        *("confusion.csv", "confusion.png", "corruptions.csv", "corruptions.png"),
        *("mistakes.png", "reliability.csv", "reliability.png"),
    ]


def test_the_command_shows_the_metrics(evaluated):
    assert f"{evaluated.written['corrupted_accuracy']:.2%}" in evaluated.shown
    for word in ("airplane", "gaussian_noise", "–", "calibration error", "temperature 1.600"):
        assert word in evaluated.shown


def test_a_second_evaluation_of_the_same_weights_writes_the_same_files(evaluated):
    files = sorted(file for file in evaluated.folder.rglob("*") if file.is_file())
    before = [digest_file(file) for file in files]
    main(data=evaluated.folder / "data.npz", weights=evaluated.folder / "weights.pth")
    assert [digest_file(file) for file in files] == before


def test_evaluations_are_read_where_only_the_serving_packages_are():
    absent = "import sys; sys.modules |= dict.fromkeys(('matplotlib', 'mlflow', 'torchvision', 'dvc'))"
    subprocess.run(
        [sys.executable, "-c", f"{absent}; import training.evaluate, training.export"], cwd=REPOSITORY, check=True
    )


def test_without_matplotlib_the_command_says_what_to_install(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "training.evaluation_plots", raising=False)
    with pytest.raises(TrainingError, match=r"matplotlib is not installed: pip install -e '\.\[training\]'"):
        main(data=tmp_path / "data.npz", weights=weights)


def test_metrics_of_other_weights_are_ignored(weights, tmp_path):
    metrics = {"weights_digest": digest_file(weights), "accuracy": 0.5}
    (tmp_path / "evaluation.json").write_bytes(orjson.dumps(metrics))
    assert read_evaluation(weights) == metrics
    weights.write_bytes(weights.read_bytes() + b"x")
    assert read_evaluation(weights) is None


def test_no_metrics_are_none(weights):
    assert read_evaluation(weights) is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"3"])
def test_metrics_that_are_none_are_rejected_by_name(weights, tmp_path, content):
    (tmp_path / "evaluation.json").write_bytes(content)
    with pytest.raises(InvalidFile, match=r"evaluation\.json"):
        read_evaluation(weights)


def test_an_override_that_it_does_not_read_is_rejected(weights, tmp_path):
    with pytest.raises(ParameterError, match="is not read here"):
        main(["train.epochs=3"], tmp_path / "data.npz", weights)
