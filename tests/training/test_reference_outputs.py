"""The parity reference inside an exported file: what it says, and that it says the same everywhere."""

import io

import numpy as np
import torch

from cifar.archives.model_file import REFERENCE_OUTPUTS_NAME
from training.export import export, reference_outputs
from training.model import ModelParams, build_classifier


def build(seed=0):
    torch.manual_seed(seed)
    return build_classifier(ModelParams("ImprovedCNN", filters=(4, 4, 4), hidden_width=8, flip_tta=True)).eval()


def read(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return file["images"], file["probabilities"]


def test_the_exported_file_bears_images_and_the_networks_answers(tmp_path):
    classifier, path = build(), tmp_path / "model.pt"
    export(classifier, {"version": "1.0"}, np.zeros((1, 32, 32, 3), np.uint8), 1e-5, path)
    extra = {REFERENCE_OUTPUTS_NAME: ""}
    network = torch.jit.load(path, _extra_files=extra)
    images, probabilities = read(extra[REFERENCE_OUTPUTS_NAME])
    assert (images.shape, images.dtype) == ((32, 32, 32, 3), np.uint8)
    assert (probabilities.shape, probabilities.dtype) == ((32, 10), np.float32)
    with torch.inference_mode():
        for answering in (network, classifier):
            np.testing.assert_allclose(answering(torch.from_numpy(images)).numpy(), probabilities, rtol=0, atol=1e-6)


def test_it_tells_networks_and_images_apart():
    images, probabilities = read(reference_outputs(build(0)))
    assert len({picture.tobytes() for picture in images}) == len(images)
    assert len({row.tobytes() for row in probabilities}) == len(images)
    assert np.abs(read(reference_outputs(build(1)))[1] - probabilities).max() > 1e-2


def test_it_is_the_same_whatever_the_order_of_sums(monkeypatch):
    """Batch size and memory layout change the order in which single precision adds up, and its last bits."""
    classifier = build()
    reference = reference_outputs(classifier)
    assert reference == reference_outputs(classifier)
    images, probabilities = read(reference)
    contiguous = build().to(memory_format=torch.contiguous_format).double()
    with torch.inference_mode():
        one_by_one = [contiguous(torch.from_numpy(picture[np.newaxis])).numpy() for picture in images]
    assert np.array_equal(np.concatenate(one_by_one).astype(np.float32), probabilities)
    assert classifier.network.training is False
    assert next(classifier.parameters()).dtype == torch.float32  # it worked on a copy
