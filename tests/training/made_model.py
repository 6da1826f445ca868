"""A tiny model as training, evaluation and export leave it in a folder."""

import orjson
import torch

from cifar.archives.reference_outputs import synthetic_images
from cifar.common.files import digest_file
from training.export import describe, export
from training.model import ModelParams, build_classifier
from training.weights import plain_values, save_weights

PARAMS = ModelParams("SimpleCNN", filters=(4, 4), hidden_width=8)
FIGURES = {"accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.875, "loss": 0.625, "images": 20, "classes": {}}


def write(path, content):
    path.write_bytes(orjson.dumps(content))


def make_model(folder, run_id, seed=0, version="1.10"):
    """Do what training, evaluation and export leave in a folder, with a tiny network; return the weights' path."""
    torch.manual_seed(seed)
    classifier = build_classifier(PARAMS).eval()
    weights = folder / "best.pth"
    save_weights(classifier.network.state_dict(), weights)
    record = {"model": plain_values(PARAMS), "git_commit": "abc", "data_digest": "d1", "mlflow_run": run_id}
    write(folder / "training.json", record)
    write(folder / "evaluation.json", FIGURES | {"data_digest": "d1", "weights_digest": digest_file(weights)})
    (folder / "plots").mkdir(exist_ok=True)
    (folder / "plots" / "confusion.png").write_bytes(b"an image")
    export(classifier, describe(weights, version), synthetic_images(6), 1e-5, folder / "model.pt")
    return weights
