"""Several seeds: the same training each, and the best on the validation images is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar.common.files import digest_file, read_json, write_json
from training.data import save_dataset
from training.errors import ParameterError, WeightsError
from training.evaluate import read_evaluation
from training.seeds import main, read_seeds, spread, summarise

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = [
    "train.epochs=2",
    "train.batch_size=16",
    "train.device=cpu",
    "model.filters=[4, 4, 4]",
    "model.hidden_width=8",
]


@pytest.fixture(scope="module")
def trained(make_dataset, session_store, tmp_path_factory):
    """Two seeds, run as a user does."""
    folder = tmp_path_factory.mktemp("seeds")
    (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    save_dataset(make_dataset(), folder / "data.npz")

    def run():
        overrides = [part for setting in SETTINGS for part in ("--set", setting)]
        done = subprocess.run(
            [sys.executable, "-m", "training.seeds", "5", "6", "--data", "data.npz", *overrides],
            cwd=folder,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": f"sqlite:///{session_store}", "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return folder, run(), run


def test_each_seed_is_trained_and_the_best_on_validation_is_kept(trained):
    folder, output, _ = trained
    weights = folder / "artifacts" / "best_cnn_model.pth"
    rows = read_seeds(weights)
    assert [row["seed"] for row in rows] == [5, 6]
    for row in rows:
        own = folder / "artifacts" / "seeds" / str(row["seed"]) / "best_cnn_model.pth"
        record, metrics = read_json(own.parent / "training.json") or {}, read_evaluation(own) or {}
        assert record["train"]["seed"] == row["seed"]
        assert row["weights_digest"] == digest_file(own) == metrics["weights_digest"]
        assert (row["accuracy"], row["validation_accuracy"]) == (metrics["accuracy"], record["validation_accuracy"])
    best = max(rows, key=lambda row: row["validation_accuracy"])
    assert digest_file(weights) == best["weights_digest"]
    assert read_evaluation(weights) is not None
    assert (read_json(weights.parent / "training.json") or {})["train"]["seed"] == best["seed"]
    assert {"(kept)", "mean", "deviation"} <= set(output.split())


def test_run_again_it_trains_nothing(trained):
    _, _, run = trained
    output = run()
    assert output.count("done before") == 2
    assert "epoch" not in output


def test_runs_that_differ_in_more_than_the_seed_are_not_put_together(trained):
    folder, _, _ = trained
    folders = [folder / "artifacts" / "seeds" / seed for seed in ("5", "6")]
    record = folders[1] / "training.json"
    before = record.read_bytes()
    changed = read_json(record) or {}
    write_json(changed | {"train": changed["train"] | {"lr": 0.7}}, record)
    try:
        with pytest.raises(WeightsError, match=r"not trained as .*: lr differ"):
            summarise(folders)
    finally:
        record.write_bytes(before)
    assert len(summarise(folders)) == 2


def test_a_seed_without_metrics_is_rejected(trained, tmp_path):
    with pytest.raises(WeightsError, match=r"lacks training\.json or evaluation\.json"):
        (tmp_path / "best_cnn_model.pth").write_bytes(b"")
        summarise([tmp_path])


@pytest.mark.parametrize(("seeds", "overrides"), [([1, 1], None), ([1, 2], ["train.seed=3"])])
def test_a_seed_given_twice_is_rejected(seeds, overrides, tmp_path):
    with pytest.raises(ParameterError, match="each seed counts once"):
        main(seeds, overrides, tmp_path / "data.npz", tmp_path / "best.pth")


def test_the_spread_is_that_of_a_sample():
    assert spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, 1.527525))
    assert spread([0.8]) == (0.8, 0.0)
