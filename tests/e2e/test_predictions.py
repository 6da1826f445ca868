"""What the running service answers, against the same network in this process."""

import io
import json
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from cifar.common.project import class_names

JSON = "application/json"
RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def expected(classifier, images):
    """Probabilities (16, 10) of the network that training code runs."""
    with torch.inference_mode():
        return classifier(torch.from_numpy(images)).numpy()


def assert_answers(prediction: dict[str, Any], probabilities: np.ndarray) -> None:
    best = int(probabilities.argmax())
    assert prediction["class_index"] == best
    assert prediction["prediction"] == class_names()[best]
    assert prediction["confidence"] == pytest.approx(float(probabilities[best]), abs=1e-5)


def encode(image: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(lambda image: json.dumps({"image": image.flatten().tolist()}), JSON, id="flat JSON"),
        pytest.param(lambda image: json.dumps({"image": image.tolist()}), JSON, id="nested JSON"),
        pytest.param(lambda image: json.dumps({"image": (image / 255).tolist()}), JSON, id="JSON scaled to 0-1"),
        pytest.param(lambda image: json.dumps(image.flatten().tolist()), JSON, id="bare list"),
        pytest.param(lambda image: image.tobytes(), RAW, id="raw bytes"),
        pytest.param(lambda image: encode(image, "PNG"), "image/png", id="PNG"),
        pytest.param(lambda image: encode(image, "PNG"), None, id="PNG without content type"),
        pytest.param(lambda image: image.tobytes(), None, id="raw bytes without content type"),
    ],
)
def test_one_image_is_answered_as_the_network_answers(torchserve, images, expected, body, content_type):
    answer = torchserve.post(body(images[0]), content_type)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Model-Version"] == "1.0"
    assert_answers(answer.json(), expected[0])


def test_jpeg_is_answered_as_its_decoded_pixels(torchserve, images, classifier):
    jpeg = encode(images[0], "JPEG")
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)))
    with torch.inference_mode():
        probabilities = classifier(torch.from_numpy(pixels.copy())[None]).numpy()[0]
    assert_answers(torchserve.post(jpeg, "image/jpeg").json(), probabilities)


def test_scaled_image_is_told_so(torchserve, images):
    answer = torchserve.post(json.dumps({"image": (images[0] / 255).tolist()}), JSON).json()
    assert answer["max_value"] == 1


@pytest.mark.parametrize("key", ["images", "instances"])
def test_images_are_answered_in_their_order(torchserve, images, expected, key):
    answer = torchserve.post(json.dumps({key: images.tolist()}), JSON)
    predictions = answer.json()["predictions"]
    assert len(predictions) == len(images)
    for prediction, probabilities in zip(predictions, expected, strict=True):
        assert_answers(prediction, probabilities)


def test_256_raw_images_are_answered_in_one_request(torchserve, images, expected):
    answer = torchserve.post(np.tile(images, (16, 1, 1, 1)).tobytes(), RAW)
    predictions = answer.json()["predictions"]
    assert len(predictions) == 256
    for prediction, probabilities in zip(predictions, np.tile(expected, (16, 1)), strict=True):
        assert_answers(prediction, probabilities)


def test_description_names_the_model_and_its_limits(torchserve, images):
    answer = torchserve.manage("GET", "/models/cifar", customized="true")
    described = answer.json()[0]["customizedMetadata"]
    described = json.loads(described) if isinstance(described, str) else described
    assert described["class_names"] == list(class_names())
    assert (described["version"], described["limits"]["max_images"]) == ("1.0", 256)
    digest = torchserve.post(images[0].tobytes(), RAW).headers["X-Model-Digest"]
    assert described["model_digest"] == digest == described["weights_digest"][:12]


def test_a_client_that_sends_describe_gets_its_prediction(torchserve, images, expected):
    answer = torchserve.post(images[0].tobytes(), RAW, describe="True")
    assert_answers(answer.json(), expected[0])


def test_version_in_the_path_is_answered_by_that_version(torchserve, images):
    answer = torchserve.post(images[0].tobytes(), RAW, path="/predictions/cifar/1.0")
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "1.0")


def test_top_k_as_json_key_and_as_header(torchserve, images, expected):
    ranked = [class_names()[index] for index in np.argsort(-expected[0])[:3]]
    as_key = torchserve.post(json.dumps({"image": images[0].tolist(), "top_k": 3}), JSON).json()
    as_header = torchserve.post(images[0].tobytes(), RAW, X_Top_K="3").json()
    for answer in (as_key, as_header):
        assert [guess["label"] for guess in answer["top_k"]] == ranked


def test_torchserve_drops_the_query_of_predictions(torchserve, images):
    """The reason for the header X-Top-K (docs/adr/0004); when this fails, a newer TorchServe passes queries on."""
    answer = torchserve.post(images[0].tobytes(), RAW, path="/predictions/cifar?top_k=3")
    assert "top_k" not in answer.json()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        pytest.param(b'{"image": [1, 2', JSON, 400, "malformed_json", id="malformed JSON"),
        pytest.param(b"", JSON, 400, "empty_body", id="empty"),
        pytest.param(json.dumps({"picture": []}), JSON, 422, "missing_image", id="missing key"),
        pytest.param(json.dumps({"image": [0] * 3071}), JSON, 422, "wrong_length", id="one number short"),
        pytest.param(json.dumps({"image": [0] * 3071 + ["7"]}), JSON, 422, "not_a_number", id="text among numbers"),
        pytest.param(json.dumps({"image": [0] * 3071 + [256]}), JSON, 422, "number_too_large", id="above 255"),
        pytest.param(json.dumps({"image": [0.5] * 3071 + [-1]}), JSON, 422, "negative_number", id="normalised"),
        pytest.param(b"\0" * 3071, RAW, 422, "wrong_length", id="raw, one byte short"),
        pytest.param(b"\0" * 3072 * 257, RAW, 413, "too_many_images", id="257 raw images"),
        pytest.param(b"no image", "image/png", 415, "unsupported_picture", id="no image"),
        pytest.param(b"\x89PNG\r\n\x1a\n1234", "image/png", 400, "unreadable_picture", id="truncated image"),
        pytest.param(b"hello", "text/plain", 415, "unsupported_type", id="unsupported type"),
    ],
)
def test_bad_input_is_rejected_with_its_code(torchserve, body, content_type, status, code):
    answer = torchserve.post(body, content_type)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["error"]["message"]


def test_bad_requests_do_not_fail_their_batch(torchserve, images, expected):
    requests_to_send = [(b"short", RAW) if i % 4 == 0 else (images[i % 16].tobytes(), RAW) for i in range(64)]
    answers = torchserve.post_together(requests_to_send)
    for index, answer in enumerate(answers):
        if index % 4 == 0:
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "wrong_length")
        else:
            assert answer.status_code == 200
            assert_answers(answer.json(), expected[index % 16])


def test_workers_outlive_bad_input(torchserve, images):
    def worker_ids():
        described = torchserve.manage("GET", "/models/cifar").json()[0]
        return sorted(worker["pid"] for worker in described["workers"])

    before = worker_ids()
    assert len(before) == 2
    for body, content_type in [(b"{", JSON), (b"[" * 100_000, JSON), (b"\xff\xd8\xff", "image/jpeg"), (b"", None)]:
        assert 400 <= torchserve.post(body, content_type).status_code < 500
    assert torchserve.post(images[0].tobytes(), RAW).status_code == 200
    assert worker_ids() == before


def test_metrics_answer_in_prometheus_format(torchserve, images):
    assert torchserve.post(images[0].tobytes(), RAW).status_code == 200
    text = requests.get(f"{torchserve.server.addresses.metrics}/metrics", timeout=10).text
    assert "# TYPE ts_inference_requests_total counter" in text
