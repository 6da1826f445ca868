"""Every refusal of the decoder's table, over HTTP, from a real TorchServe; and good requests among many bad ones."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests

from bad_input import STATUS_OF_CODE
from tests.e2e.service import Service
from tests.handler.test_decoding import BAD

RAW = "application/octet-stream"
CLIENTS = 64

# An unknown option has no header, and a query does not arrive: only /invocations passes one on.
SENDABLE = {name: row for name, row in BAD.items() if not row[2].keys() - {"top_k", "max_value"}}


def send(service: Service, body: Any, content_type: str | None, options: dict[str, str]) -> requests.Response:
    as_it_is = isinstance(body, bytes | bytearray) or (isinstance(body, str) and content_type != "application/json")
    payload = body if as_it_is else json.dumps(body)
    headers = {f"X_{name.title()}": value for name, value in options.items()}
    return service.post(payload, content_type, **headers)


def worker_ids(service: Service) -> list[int]:
    described = requests.get(f"{service.management_url}/models/cifar", timeout=10).json()[0]
    return sorted(worker["pid"] for worker in described["workers"])


@pytest.fixture(scope="module")
def alive(torchserve, images) -> Callable[[], None]:
    """Checks that the workers are those from before, and answer."""
    before = worker_ids(torchserve)

    def check() -> None:
        assert torchserve.post(images[0].tobytes(), RAW).status_code == 200
        assert worker_ids(torchserve) == before

    return check


def test_the_table_has_enough_rows():
    assert len(SENDABLE) >= 60


@pytest.mark.parametrize(("body", "content_type", "options", "code", "words"), SENDABLE.values(), ids=SENDABLE)
def test_refusal_over_http_is_the_decoders(torchserve, alive, body, content_type, options, code, words):
    answer = send(torchserve, body, content_type, options)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Model-Version"] == "1.0"
    error = answer.json()["error"]
    assert (error["code"], answer.status_code) == (code, STATUS_OF_CODE[code])
    assert "Traceback" not in error["message"]
    alive()


def test_64_clients_one_in_four_of_which_sends_bad_bodies(torchserve, images, alive):
    """Each good answer is that of a run without bad ones; each bad request gets its own refusal."""
    bad = list(SENDABLE.values())

    def ask(index: int) -> requests.Response:
        if index % 4 == 0:
            body, content_type, options, _, _ = bad[index // 4 % len(bad)]
            return send(torchserve, body, content_type, options)
        answer: requests.Response = torchserve.post(images[index % len(images)].tobytes(), RAW)
        return answer

    alone = [torchserve.post(image.tobytes(), RAW).json() for image in images]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(8 * CLIENTS)))
    for index, answer in enumerate(answers):
        if index % 4 == 0:
            code = bad[index // 4 % len(bad)][3]
            assert (answer.status_code, answer.json()["error"]["code"]) == (STATUS_OF_CODE[code], code)
        else:
            expected = alone[index % len(images)]
            assert answer.status_code == 200
            assert answer.json()["class_index"] == expected["class_index"]
            assert answer.json()["confidence"] == pytest.approx(expected["confidence"], abs=1e-5)
    alive()


def test_one_request_of_256_images_answers_as_256_requests_of_one(torchserve):
    images = np.random.default_rng(11).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    together = torchserve.post(images.tobytes(), RAW).json()["predictions"]
    with ThreadPoolExecutor(16) as pool:
        apart = [answer.json() for answer in pool.map(lambda image: torchserve.post(image.tobytes(), RAW), images)]
    assert [answer["class_index"] for answer in together] == [answer["class_index"] for answer in apart]
    confidences = [[answer["confidence"] for answer in answers] for answers in (together, apart)]
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-5)
