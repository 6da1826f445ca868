"""The model card: every metric in it comes from a file."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cifar.common.files import digest_file, read_json, write_json
from cifar.common.project import class_names
from training.corruptions import CORRUPTIONS
from training.errors import WeightsError
from training.model import ModelParams, build_classifier
from training.model_card import CARD_NAME, PRETRAINED, card, main, multiplications, write_card
from training.weights import plain_values, save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ModelParams("ImprovedCNN", (4, 5, 6), 3, 2, 8, 0.1, "relu", True, True)


@pytest.fixture
def folder(tmp_path):
    """Weights, record and metrics, none of whose numbers occurs twice."""

    def make(name="7.0", **changes):
        torch.manual_seed(0)
        weights = tmp_path / name / "best_cnn_model.pth"
        save_weights(build_classifier(SMALL).network.state_dict(), weights)
        speeds = [900.0, 1234.0, 2000.0]
        record = {
            "model": plain_values(SMALL),
            "train": {"lr": 0.0123, "seed": 3},
            "data_digest": "data0123",
            "git_commit": "commit0123",
            "mlflow_run": "run0123",
            "torch": "2.13.0",
            "best_epoch": 2,
            "validation_loss": 0.5432,
            "validation_accuracy": 0.8765,
            "temperature": 0.789,
            "history": [{"images_per_second": speed} for speed in speeds],
        }
        metrics: dict[str, Any] = {
            "accuracy": 0.8612,
            "accuracy_low": 0.8501,
            "accuracy_high": 0.8723,
            "top2_accuracy": 0.9456,
            "loss": 0.4,
            "calibration_error": 0.0234,
            "calibration_error_before": 0.0567,
            "temperature": 0.789,
            "corrupted_accuracy": 0.6543,
            "classes": {
                label: {"precision": 0.8 + index / 100, "recall": 0.7 + index / 100}
                for index, label in enumerate(class_names())
            },
            "confusion": torch.eye(10, dtype=torch.int64).mul(100).tolist(),
            "reliability": [{"confidence": (i + 0.5) / 15, "accuracy": i / 15, "images": 10} for i in range(15)],
            "corruptions": {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in CORRUPTIONS}
            | {"fog": [0.81, 0.82, 0.83, 0.84, 0.85]},
            "images": 10000,
            "data_digest": "data0123",
            "weights_digest": digest_file(weights),
        }
        metrics["classes"]["cat"]["precision"] = None
        write_json(record, weights.parent / "training.json")
        write_json(metrics | changes, weights.parent / "evaluation.json")
        return weights.parent

    return make


def test_every_metric_is_in_the_card(folder, tmp_path):
    text = card([folder()], tmp_path)
    shown = [
        "**86.12%** (85.01% to 87.23%)",
        "94.56%",
        "2.34% (5.67% without temperature)",
        "65.43%",
        "87.65%",
        "0.789",
    ]
    shown += ["| cat | – | 73.0% |", "| truck | 89.0% | 79.0% |", "| fog | 81.0% | 82.0% | 83.0% | 84.0% | 85.0% |"]
    shown += ["| gaussian noise | 10.0% |", "| train.lr | 0.0123 |", "median 1,234 images a second", "number 2 had"]
    shown += ["`commit0123`", "`run0123`", "`data0123`", "filters 4, 5, 6", "one seed only"]
    assert [part for part in shown if part not in text] == []


def test_seeds_are_listed_with_mean_and_spread(folder, tmp_path):
    made = folder()
    digest = digest_file(made / "best_cnn_model.pth")
    shares = (0.84, 0.85, 0.87)
    rows = [
        {
            "seed": seed,
            "accuracy": share,
            "validation_accuracy": share,
            "corrupted_accuracy": 0.6,
            "weights_digest": digest if seed == 2 else "",
        }
        for seed, share in enumerate(shares)
    ]
    write_json({"seeds": rows}, made / "seeds.json")
    text = card([made], tmp_path)
    assert "85.33% ± 1.53% over 3 seeds" in text
    assert "| 2 | 87.00% | 87.00% | 60.00% | these weights |" in text
    assert "| 0 | 84.00% | 84.00% | 60.00% |  |" in text


def test_versions_stand_side_by_side(folder, tmp_path):
    text = card([folder("1.0"), folder("2.0", accuracy=0.9123)], tmp_path)
    assert "| | 1.0 | 2.0 |" in text
    assert re.search(r"\*\*86\.12%\*\*.* \| \*\*91\.23%\*\*", text)


def test_the_card_is_written_with_the_images_that_it_links_to(folder, tmp_path):
    write_card([folder()], tmp_path / "card.md")
    links = re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "card.md").read_text())
    assert len(links) == 3
    for link in links:
        assert (tmp_path / link).read_bytes().startswith(b"\x89PNG")


def test_multiplications_are_those_of_convolutions_and_linear_layers():
    expected = 32 * 32 * 4 * 3 * 9 + 16 * 16 * 5 * 4 * 9 + 8 * 8 * 6 * 5 * 9 + 6 * 16 * 8 + 8 * 10
    assert multiplications(build_classifier(SMALL).eval()) == expected
    assert multiplications(build_classifier(replace(SMALL, flip_tta=True)).eval()) == 2 * expected


@pytest.mark.parametrize("name", ["training.json", "evaluation.json"])
def test_a_folder_without_record_or_metrics_is_rejected_and_nothing_written(folder, tmp_path, name):
    made = folder()
    (made / name).unlink()
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        write_card([made], tmp_path / "card.md")
    assert not (tmp_path / "card.md").exists()


def test_metrics_of_other_weights_are_rejected(folder, tmp_path):
    made = folder(weights_digest="of others")
    with pytest.raises(WeightsError, match="of its weights; measure them"):
        card([made], tmp_path)


def test_without_shipped_weights_the_folders_must_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="name the folders"):
        main(None, tmp_path / CARD_NAME)


def test_the_shipped_card_is_that_of_the_shipped_weights():
    folders = sorted(path.parent for path in (REPOSITORY / PRETRAINED).glob("*/best_cnn_model.pth"))
    assert folders
    assert (REPOSITORY / PRETRAINED / CARD_NAME).read_text() == card(folders, REPOSITORY / PRETRAINED)
    for folder in folders:
        metrics = read_json(folder / "evaluation.json") or {}
        assert metrics["weights_digest"] == digest_file(folder / "best_cnn_model.pth")
