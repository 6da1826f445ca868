"""What a real TorchServe writes for good requests, for nonsense, and when a worker fails: bounded, and still of use."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from cifar.deployment.verification import read_counts
from tests.support.service import Service

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UNKNOWN = b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"
FORM = (
    b"POST /predictions/cifar HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 1000000\r\n\r\na=%zz"
) + b"a" * 999_995
NOT_JSON = (
    b"POST /predictions/cifar HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    b"{nothing}"
)
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + os.urandom(500)


def send(url: str, request: bytes) -> bytes:
    """Send what no HTTP library sends; return the first line of the answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(request)
        try:
            return connection.recv(4096).partition(b"\r\n")[0]
        except ConnectionResetError:  # it has closed before it has read all
            return b""


@pytest.fixture
def growth(torchserve: Service) -> Iterator[Callable[[], int]]:
    """Return a function that gives the bytes that all logs have grown by since the test began."""
    logs = torchserve.server.run_dir / "logs"

    def size() -> int:
        return sum(file.stat().st_size for file in logs.rglob("*") if file.is_file())

    time.sleep(1)  # what others have caused
    before = size()
    yield lambda: size() - before


def read(torchserve: Service, name: str) -> str:
    return (Path(torchserve.server.run_dir) / "logs" / name).read_text(errors="replace")


def test_good_requests_write_nothing(torchserve, growth, images):
    for image in np.tile(images, (10, 1, 1, 1)):
        assert torchserve.post(image.tobytes(), "application/octet-stream").status_code == 200
    time.sleep(1)
    assert growth() == 0


@pytest.mark.parametrize("nonsense", [PREFACE, UNKNOWN, FORM, NOT_JSON, TLS])
def test_nonsense_writes_little_a_line_and_its_input_is_not_copied(torchserve, growth, nonsense):
    for _ in range(20):
        send(torchserve.url, nonsense)
    time.sleep(1)
    assert growth() < 20 * 2000
    for name in ("torchserve.log", "access_log.log"):
        assert max(map(len, read(torchserve, name).splitlines())) < 2000


def test_a_flood_of_nonsense_is_left_out(torchserve, growth):
    for _ in range(1000):
        send(torchserve.url, UNKNOWN)
    time.sleep(1)
    assert growth() < 1_000_000  # it was 8 MB


def test_answers_that_are_errors_are_in_the_access_log_and_good_ones_are_not(torchserve, images):
    def lines() -> list[str]:
        return [line for line in read(torchserve, "access_log.log").splitlines() if "/predictions/cifar/1.0 " in line]

    deadline = time.monotonic() + 30  # a flood before this has used up what is logged at once
    while not any(" 422 " in line for line in lines()):
        assert time.monotonic() < deadline, lines()
        torchserve.post(images[0].tobytes(), "application/octet-stream", path="/predictions/cifar/1.0")
        torchserve.post(b"short", "application/octet-stream", path="/predictions/cifar/1.0")
        time.sleep(1)
    assert all(" 200 " not in line for line in lines())


def test_nonsense_fails_no_prediction(torchserve, images):
    metrics = torchserve.server.addresses.metrics
    before = read_counts(metrics)
    for _ in range(200):
        send(torchserve.url, PREFACE)
    torchserve.post(images[0].tobytes(), "application/octet-stream")
    time.sleep(2)
    after = read_counts(metrics)
    assert before is not None
    assert after is not None
    assert after.all_5xx - before.all_5xx >= 200
    assert after.requests - before.requests == after.answered - before.answered == 1
    assert after.failed == before.failed
