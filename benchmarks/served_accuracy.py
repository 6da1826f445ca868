"""Sends the 10,000 test images through the running server and compares its answers with the training code's.

Usage: python -m benchmarks.served_accuracy [--url URL] [--weights FILE] [--data FILE]

Exit code 1 when a single most probable class differs, or when the accuracy is not the one that is recorded beside the
weights for the same data set.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from cifar.cli.options import UrlOption
from cifar.client.inference import InferenceClient
from cifar.common.console import run_stage
from training.data import DATA_FILE, load_dataset
from training.evaluate import read_evaluation
from training.model import predict_probabilities
from training.weights import load_classifier

PRETRAINED = Path("training/pretrained/1.0/best_cnn_model.pth")
_REQUEST_IMAGES = 100


def main(
    url: UrlOption,
    weights: Annotated[Path, typer.Option(help="the weights that it serves")] = PRETRAINED,
    data: Annotated[Path, typer.Option(help="the prepared data set")] = DATA_FILE,
) -> None:
    """Compare what is served with what was trained, on the test images."""
    console = Console()
    dataset = load_dataset(data)
    images, labels = dataset.test_images, dataset.test_labels
    expected = predict_probabilities(load_classifier(weights), images)
    served, confidences, versions = [], [], set()
    with InferenceClient(url) as client:
        starts = range(0, len(images), _REQUEST_IMAGES)
        for start in track(starts, "asking the server", console=console, transient=True):
            answer = client.predict(images[start : start + _REQUEST_IMAGES])
            versions.add(answer.model_version)
            served += [prediction.class_index for prediction in answer.predictions]
            confidences += [prediction.confidence for prediction in answer.predictions]
    top_1 = expected.argmax(axis=1)
    differing = int((np.array(served) != top_1).sum())
    accuracy = float((np.array(served) == labels).mean())
    difference = float(np.abs(np.array(confidences) - expected.max(axis=1)).max())
    recorded = read_evaluation(weights)
    comparable = recorded is not None and recorded["data_digest"] == dataset.digest
    console.print(f"version {', '.join(map(str, versions))} at {url}, {len(images):,} test images", highlight=False)
    console.print(f"most probable class differs from the training code's: {differing} times", highlight=False)
    console.print(f"largest difference of a confidence: {difference:.1e}", highlight=False)
    console.print(f"accuracy: {accuracy:.2%}", highlight=False)
    if recorded is not None:
        where = "on this data set" if comparable else f"on another one ({recorded['data_digest'][:12]})"
        console.print(f"recorded beside the weights: {recorded['accuracy']:.2%} {where}", highlight=False)
    if differing or (recorded is not None and comparable and accuracy != recorded["accuracy"]):
        sys.exit(1)


if __name__ == "__main__":
    run_stage(main)
