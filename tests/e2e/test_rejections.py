"""Every rejection of the decoder's table, over HTTP, from a real TorchServe; and good requests among many bad ones."""

import http.client
import io
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from PIL import Image

from bad_input import STATUS_OF_CODE
from tests.handler.bad_forms import BAD_FORMS
from tests.handler.bad_headers import BAD_HEADERS
from tests.handler.bad_tensors import BAD_BINARY, BAD_NPY, BAD_OPEN_INFERENCE
from tests.handler.heavy_files import jpeg_of_scans, jpeg_with, png_chunk, png_of_zeros, png_with
from tests.handler.samples import JPEG, PNG, encode
from tests.handler.test_decoding import BAD
from tests.support.service import Service

RAW = "application/octet-stream"
CLIENTS = 64

# An unknown option has no header, and a query does not arrive: only /invocations passes one on.
SENDABLE = {
    name: row
    for name, row in (BAD | BAD_NPY | BAD_OPEN_INFERENCE).items()
    if not row[2].keys() - {"top_k", "max_value"}
}
# What TorchServe would parse or drop before it is a field, and what no client library sends, is not sent here.
FORMS = {
    name: row
    for name, row in BAD_FORMS.items()
    if row[0] and not row[1] and all(isinstance(content, bytes | bytearray) for content in row[0].values())
}


def send(service: Service, body: Any, content_type: str | None, options: dict[str, str]) -> requests.Response:
    as_it_is = isinstance(body, bytes | bytearray) or (isinstance(body, str) and content_type != "application/json")
    payload = body if as_it_is else json.dumps(body)
    headers = {f"X_{name.title()}": value for name, value in options.items()}
    return service.post(payload, content_type, **headers)


def code_of(answer: requests.Response) -> str:
    """The code of an error in either form: errors of the Open Inference Protocol are text."""
    error = answer.json()["error"]
    return str(error.partition(":")[0] if isinstance(error, str) else error["code"])


def worker_ids(service: Service) -> list[int]:
    described = service.manage("GET", "/models/cifar").json()[0]
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
def test_rejection_over_http_is_the_decoders(torchserve, alive, body, content_type, options, code, words):
    answer = send(torchserve, body, content_type, options)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Model-Version"] == "1.0"
    assert re.fullmatch("[0-9a-f]{12}", answer.headers["X-Model-Digest"])
    assert (code_of(answer), answer.status_code) == (code, STATUS_OF_CODE[code])
    assert "Traceback" not in answer.text
    alive()


@pytest.mark.parametrize(("body", "headers", "code", "words"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_header_that_changes_the_body_is_rejected_over_http(torchserve, alive, body, headers, code, words):
    url = f"{torchserve.url}/predictions/cifar"
    sent = headers if any(name.lower() == "content-type" for name in headers) else {"Content-Type": RAW, **headers}
    # http.client sends names that differ in case as they are; requests would merge them.
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("POST", urlsplit(url).path, body, sent)
        answer = connection.getresponse()
        assert (json.load(answer)["error"]["code"], answer.status) == (code, STATUS_OF_CODE[code])
    finally:
        connection.close()
    alive()


@pytest.mark.parametrize(("body", "length", "code", "words"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_binary_tensors_are_rejected_over_http_in_the_form_of_their_protocol(
    torchserve, alive, body, length, code, words
):
    headers = {"Inference_Header_Content_Length": length}
    answer = torchserve.post(body, RAW, "/v2/models/cifar/infer", **headers)
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(f"{code}: ")
    assert answer.status_code == STATUS_OF_CODE[code]
    alive()


@pytest.mark.parametrize(("fields", "headers", "code", "words"), FORMS.values(), ids=FORMS)
def test_form_is_rejected_over_http_as_by_the_decoder(torchserve, alive, fields, headers, code, words):
    files = {name: (f"{name}.bin", io.BytesIO(content)) for name, content in fields.items()}
    answer = requests.post(f"{torchserve.url}/predictions/cifar", files=files, headers=headers, timeout=60)
    assert (answer.json()["error"]["code"], answer.status_code) == (code, STATUS_OF_CODE[code])
    alive()


def count_batches(service: Service) -> tuple[float, float]:
    """Batches and the requests in them, of all workers; they hand their counts over once a second."""
    counts = [read_batches(service)]
    while len(counts) < 3 or counts[-1] != counts[-3]:
        assert len(counts) < 20, f"the counts never come to rest: {counts}"
        time.sleep(1)
        counts.append(read_batches(service))
    return counts[-1]


def read_batches(service: Service) -> tuple[float, float]:
    text = requests.get(f"{service.server.addresses.metrics}/metrics", timeout=10).text
    found = dict(re.findall(r"^cifar_batch_size_(count|sum)\{.*?\} ([0-9.eE+]+)$", text, re.MULTILINE))
    return float(found.get("count", 0)), float(found.get("sum", 0))


def test_64_clients_one_in_four_of_which_sends_bad_bodies(torchserve, images, alive):
    """Each good answer is that of a run without bad ones; each bad request gets its own rejection."""
    bad = list(SENDABLE.values())

    def ask(index: int) -> requests.Response:
        if index % 4 == 0:
            body, content_type, options, _, _ = bad[index // 4 % len(bad)]
            return send(torchserve, body, content_type, options)
        answer: requests.Response = torchserve.post(images[index % len(images)].tobytes(), RAW)
        return answer

    alone = [torchserve.post(image.tobytes(), RAW).json() for image in images]
    before = count_batches(torchserve)
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(8 * CLIENTS)))
    batches, counted = (after - start for after, start in zip(count_batches(torchserve), before, strict=True))
    assert counted == 8 * CLIENTS
    assert batches < counted / 2, "no batches formed: the test would prove nothing"
    for index, answer in enumerate(answers):
        if index % 4 == 0:
            code = bad[index // 4 % len(bad)][3]
            assert (answer.status_code, code_of(answer)) == (STATUS_OF_CODE[code], code)
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


HEAVY = {
    "scans": (jpeg_of_scans((4096, 4096), 5000), 413),
    "chunks": (png_with(png_chunk(b"tEXt") * 500_000, PNG), 413),
    "comments": (jpeg_with(b"\xff\xfe\0\2" * 1_600_000, JPEG), 413),
    "one column": (png_of_zeros(1, 4096 * 4096, colour=0), 413),
    "the worst that is taken": (png_of_zeros(4096, 4096), 200),
    "the most scans": (jpeg_of_scans((4096, 4096), 20), 200),
}


def test_files_that_take_long_to_decode_hold_nobody_up(torchserve, images, alive):
    """Ten of each, among single images, from 16 clients: the first kinds took workers 2 to 45 s each."""
    heavy = list(HEAVY.values())

    def ask(index: int) -> tuple[int, int, float]:
        started = time.monotonic()
        if index % 4 == 0:
            body, status = heavy[index // 4 % len(heavy)]
            answer = torchserve.post(body, None)
        else:
            status, answer = 200, torchserve.post(images[index % len(images)].tobytes(), RAW)
        return answer.status_code, status, time.monotonic() - started

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(240)))
    assert [came for came, expected, _ in answers if came != expected] == []
    assert max(took for *_, took in answers) < 20
    alive()


@pytest.mark.parametrize("count", [2, 3])
def test_tiny_files_under_one_name_are_not_lost_without_a_word(torchserve, count):
    dot = encode(Image.new("L", (1, 1)))
    url = f"{torchserve.url}/predictions/cifar"
    one_name = requests.post(url, files=[("image", (f"{n}.png", dot, "image/png")) for n in range(count)], timeout=60)
    assert (one_name.status_code, one_name.json()["error"]["code"]) == (422, "repeated_field")
    own_names = requests.post(url, files=[(f"image{n}", (f"{n}.png", dot)) for n in range(count)], timeout=60)
    assert len(own_names.json()["predictions"]) == count


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("content_type", ["application/json", None])
def test_json_behind_a_byte_order_mark_is_answered(torchserve, images, content_type, encoding):
    body = json.dumps({"image": images[0].tolist()}).encode(encoding)
    assert torchserve.post(body, content_type).json() == torchserve.post(images[0].tobytes(), RAW).json()
