"""The `cifar predict` command against a real TorchServe."""

import os
import subprocess

import numpy as np
import orjson
import pytest
from PIL import Image

from cifar.client.inference import InferenceClient
from cifar.common.image_files import decode_image_file
from cifar.common.project import class_names
from tests.support.odd_images import CONVERTED, SENT_AS_THEY_ARE
from tests.support.service import BIN


@pytest.fixture
def predict(torchserve):
    def predict(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "cifar"), "predict", "--url", torchserve.url, *map(str, arguments)]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)

    return predict


@pytest.fixture
def folder(tmp_path, images):
    """An image, an array of three and one scaled to 0-1: five images."""
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", images[1:4])
    np.save(tmp_path / "c.npy", (images[4] / 255).astype(np.float32))
    return tmp_path


@pytest.fixture
def expected(torchserve, images):
    """What the server says to the same five images as raw bytes."""
    with InferenceClient(torchserve.url) as client:
        return client.predict(images[:5])


def test_without_files_ten_drawings_are_predicted_and_said_to_be_drawings(predict):
    done = predict("--samples", "drawn", "--json")
    assert done.returncode == 0, done.stderr
    answer = orjson.loads(done.stdout)
    assert [entry["file"] for entry in answer["predictions"]] == [f"drawing ({name})" for name in class_names()]
    assert "not photographs" in done.stderr


def test_folder_of_pictures_and_arrays_is_predicted_as_its_pixels(predict, folder, expected):
    done = predict(folder, "--json", "--top-k", 3)
    assert done.returncode == 0, done.stderr
    answer = orjson.loads(done.stdout)
    assert answer["model_version"] == "1.0"
    names = [entry["file"].removeprefix(f"{folder}/") for entry in answer["predictions"]]
    assert names == ["a.png", "b.npy[0]", "b.npy[1]", "b.npy[2]", "c.npy"]
    for entry, prediction in zip(answer["predictions"], expected.predictions, strict=True):
        assert (entry["label"], len(entry["top_k"])) == (prediction.label, 3)
        assert entry["confidence"] == pytest.approx(prediction.confidence, abs=1e-5)


def test_table_shows_file_label_and_confidence(predict, folder, expected):
    done = predict(folder / "a.png")
    assert (done.returncode, "a.png" in done.stdout) == (0, True)
    assert expected.predictions[0].label in done.stdout
    assert f"{expected.predictions[0].confidence:.1%}" in done.stdout


def test_version_that_is_not_served_is_named(predict, folder):
    done = predict(folder / "a.png", "--version", "9.9")
    assert (done.returncode, "'9.9'" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_unreadable_file_does_not_stop_the_others(predict, folder):
    (folder / "broken.png").write_bytes(b"no image")
    done = predict(folder, "--json")
    entries = orjson.loads(done.stdout)["predictions"]
    assert done.returncode == 1
    assert [("error" in entry) for entry in entries] == [False, False, False, False, True, False]


def test_odd_image_files_are_answered_for_the_pixels_that_training_sees(predict, torchserve, tmp_path):
    odd = SENT_AS_THEY_ARE | CONVERTED
    for name, content in odd.items():
        (tmp_path / name).write_bytes(content)
    answer = orjson.loads(predict(tmp_path, "--json").stdout)
    answered = {entry["file"].removeprefix(f"{tmp_path}/"): entry for entry in answer["predictions"]}
    assert answered.keys() == odd.keys()
    with InferenceClient(torchserve.url) as client:
        for name, entry in answered.items():
            (expected,) = client.predict(decode_image_file(odd[name])).predictions
            assert (entry["label"], entry["confidence"]) == (expected.label, expected.confidence), name


def test_predict_and_status_print_where_only_ascii_goes(predict, torchserve):
    done = predict("--samples", "drawn", "--top-k", 2, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "10 of 10 predicted" in done.stdout
    command = [str(BIN / "cifar"), "status", "--management-url", torchserve.management_url]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "1.0 default" in done.stdout
