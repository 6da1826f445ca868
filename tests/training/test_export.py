"""The export: the contract of the file, and what is rejected."""

import numpy as np
import orjson
import pytest
import torch

from cifar.archives.reference_outputs import synthetic_images
from cifar.common.files import digest_file
from training.data import save_dataset
from training.errors import ExportRejected, GateFailed, ParameterError
from training.evaluate import write_baseline
from training.export import describe, export, largest_difference, main
from training.model import ModelParams, build_classifier
from training.weights import save_weights

REAL_LOAD = torch.jit.load
NETWORKS = [
    ModelParams("SimpleCNN", filters=(4, 4), hidden_width=8),
    ModelParams("ImprovedCNN", filters=(4, 4, 4), hidden_width=8, activation="gelu"),
    ModelParams("ImprovedCNN", filters=(4, 4, 4), hidden_width=8, batch_norm=False, mean=(0.1, 0.2, 0.3)),
]


def build(params=NETWORKS[0]):
    torch.manual_seed(0)
    classifier = build_classifier(params)
    for module in classifier.modules():  # statistics as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            statistics = dict(module.named_buffers())
            torch.nn.init.normal_(statistics["running_mean"])
            torch.nn.init.uniform_(statistics["running_var"], 0.5, 2.0)
    return classifier.eval()


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("params", NETWORKS, ids=lambda params: f"{params.name}, norm {params.batch_norm}")
def test_the_file_alone_keeps_the_contract(params, tmp_path):
    classifier = build(params)
    path = tmp_path / "model.pt"
    assert export(classifier, {"class_names": ["a"], "version": "1.10"}, synthetic_images(60), 1e-5, path) <= 1e-5
    extra = {"metadata.json": ""}
    model = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    assert orjson.loads(extra["metadata.json"]) == {"class_names": ["a"], "version": "1.10"}
    for count in (1, 7):
        images = torch.from_numpy(synthetic_images(7)[:count])
        with torch.inference_mode():
            from_bytes, from_floats, expected = model(images), model(images.float()), classifier(images)
        assert (from_bytes.dtype, from_bytes.shape) == (torch.float32, (count, 10))
        torch.testing.assert_close(from_bytes, from_floats, rtol=0, atol=1e-6)
        torch.testing.assert_close(from_bytes, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(from_bytes.sum(1), torch.ones(count), rtol=0, atol=1e-6)


def test_dropout_and_batch_norm_are_in_evaluation_mode_in_the_file(tmp_path):
    export(build(NETWORKS[1]), {}, synthetic_images(6), 1e-5, tmp_path / "model.pt")
    model = torch.jit.load(tmp_path / "model.pt")
    images = torch.from_numpy(synthetic_images(6))
    with torch.inference_mode():
        assert torch.equal(model(images), model(images))
        torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=0, atol=1e-6)


def perturbed(change):
    """Stand in for torch.jit.load: the written file is read, and its answers are changed."""

    def load(file, **options):
        exported = REAL_LOAD(file, **options)
        if not isinstance(file, str):  # a network on its way into the file
            return exported
        return lambda images: change(exported(images).clone())

    return load


def shift(amount):
    return lambda probabilities: probabilities + amount


def swap_best(probabilities):
    """Make the least probable class of the third image the most probable one, by as little as it takes."""
    row = probabilities[2]
    row[row.argmin()] = row.max() + 1e-7
    return probabilities


def spoil(probabilities):
    probabilities[1] = float("nan")
    return probabilities


def spoil_unlikely(probabilities):
    probabilities[1, probabilities[1].argmin()] = -float("inf")
    return probabilities


@pytest.mark.parametrize("old", [None, b"an earlier export"])
@pytest.mark.parametrize(
    ("change", "tolerance", "message"),
    [
        pytest.param(shift(2e-5), 1e-5, r"differ by 2\.\de-05 .* 1\.0e-05 is allowed", id="a difference of 2e-5"),
        pytest.param(shift(-2e-5), 1e-5, "differ by", id="a difference of -2e-5"),
        pytest.param(swap_best, 1.0, "image 2 another class", id="another class"),
        pytest.param(spoil, 1e-5, "was not written|no file was written", id="not a number"),
        pytest.param(spoil_unlikely, 1e-5, "differ by nan", id="minus infinity"),
    ],
)
def test_an_export_that_answers_otherwise_is_rejected_and_changes_no_file(
    tmp_path, monkeypatch, change, tolerance, message, old
):
    path = tmp_path / "model.pt"
    if old:
        path.write_bytes(old)
    monkeypatch.setattr(torch.jit, "load", perturbed(change))
    with pytest.raises(ExportRejected, match=message):
        export(build(), {}, synthetic_images(12), tolerance, path)
    assert names(tmp_path) == (["model.pt"] if old else [])
    assert not old or path.read_bytes() == old


def test_a_difference_within_the_tolerance_is_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", perturbed(shift(1e-6)))
    difference = export(build(), {}, synthetic_images(12), 1e-5, tmp_path / "model.pt")
    assert 5e-7 < difference < 2e-6
    assert names(tmp_path) == ["model.pt"]


def test_a_trained_network_that_gives_no_numbers_is_rejected(tmp_path):
    classifier = build()
    with torch.no_grad():
        classifier.network.fc2.bias[0] = float("nan")
    with pytest.raises(ExportRejected):
        export(classifier, {}, synthetic_images(6), 1e-5, tmp_path / "model.pt")
    assert names(tmp_path) == []


def test_no_numbers_on_one_side_only_are_no_agreement():
    images = synthetic_images(4)

    def finite(batch):
        return torch.full((len(batch), 10), 0.1)

    def broken(batch):
        return torch.full((len(batch), 10), float("nan"))

    for pair in ((finite, broken), (broken, finite), (broken, broken)):
        assert not largest_difference(*pair, images) <= 1.0


def test_every_batch_is_compared_and_the_image_is_named_by_its_place():
    images = np.zeros((1203, 32, 32, 3), dtype=np.uint8)
    images[1201] = 1

    def eager(batch):
        return torch.eye(10)[torch.zeros(len(batch), dtype=torch.long)]

    def other(batch):
        return torch.eye(10)[batch[:, 0, 0, 0].long()]

    def slightly(batch):
        return eager(batch) - 0.25 * batch[:, 0, 0, :1]

    with pytest.raises(ExportRejected, match="image 1201 another class"):
        largest_difference(eager, other, images)
    assert largest_difference(eager, slightly, images) == pytest.approx(0.25)


def test_drawn_images_are_the_same_every_time_and_of_every_smoothness():
    images = synthetic_images(12)
    assert np.array_equal(images, synthetic_images(12))
    assert (images.shape, images.dtype.name) == ((12, 32, 32, 3), "uint8")
    assert [len(np.unique(image.reshape(-1, 3), axis=0)) for image in images[:3]] == [1, 4, 16]


@pytest.fixture
def weights(tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "params.yaml").write_bytes((Path(__file__).resolve().parents[2] / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "artifacts" / "best_cnn_model.pth"
    save_weights(build().network.state_dict(), path)
    return path


def metadata_of(path):
    extra = {"metadata.json": ""}
    torch.jit.load(path, _extra_files=extra)
    return orjson.loads(extra["metadata.json"])


def test_weights_without_a_record_are_exported_and_what_is_not_known_is_null(weights, classes, capsys):
    main(["archive.version=1.10"], gate=False)
    metadata = metadata_of(weights.parent / "model.pt")
    assert metadata == {
        "class_names": list(classes),
        "version": "1.10",
        "git_commit": None,
        "data_digest": None,
        "mlflow_run": None,
        "weights_digest": digest_file(weights),
        "accuracy": None,
        "baseline": None,
    }
    assert "500 synthetic images (no prepared data set here)" in capsys.readouterr().out


def test_metadata_come_from_the_record_and_the_metrics_beside_the_weights(weights):
    record = {"model": {}, "git_commit": "abc", "data_digest": "d1", "mlflow_run": "run1"}
    (weights.parent / "training.json").write_bytes(orjson.dumps(record))
    metrics = {"weights_digest": digest_file(weights), "accuracy": 0.75}
    (weights.parent / "evaluation.json").write_bytes(orjson.dumps(metrics))
    write_baseline({"images": 7}, weights, digest_file(weights), 1.0)
    metadata = describe(weights, "2.0")
    expected = {"git_commit": "abc", "data_digest": "d1", "mlflow_run": "run1", "accuracy": 0.75}
    expected["baseline"] = {"images": 7}
    assert {key: metadata[key] for key in expected} == expected


def test_with_a_data_set_the_check_runs_on_its_test_images(weights, make_dataset, tmp_path, capsys):
    save_dataset(make_dataset(test=3), tmp_path / "data" / "cifar10.npz")
    main(gate=False)
    assert "30 test images" in capsys.readouterr().out


def test_overrides_of_the_model_are_read_and_others_rejected(weights):
    with pytest.raises(ParameterError, match="is not read here"):
        main(["train.epochs=3"])
    with pytest.raises(ParameterError, match=r"model\.activation"):
        main(["model.activation=tanh"], gate=False)
    assert not (weights.parent / "model.pt").exists()


def test_weights_that_do_not_pass_the_gate_are_not_exported(weights):
    with pytest.raises(GateFailed, match="so its quality is unknown"):
        main()
    metrics = {"accuracy": 0.7, "corrupted_accuracy": 0.6, "calibration_error": 0.0, "data_digest": "d"}
    metrics |= {"classes": {"cat": {"recall": 0.7}}, "weights_digest": digest_file(weights)}
    (weights.parent / "evaluation.json").write_bytes(orjson.dumps(metrics))
    with pytest.raises(GateFailed, match=r"10\.00% below gate\.min_accuracy \(80\.00%\)"):
        main(["gate.reference=null", "gate.min_accuracy=0.8"])
    assert not (weights.parent / "model.pt").exists()
    main(["gate.reference=null", "gate.min_accuracy=0.7"])
    assert metadata_of(weights.parent / "model.pt")["accuracy"] == 0.7
