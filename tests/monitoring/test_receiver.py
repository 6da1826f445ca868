"""The log of alerts, as Alertmanager meets it, and as a page in a browser or a program that means ill does."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from cifar.monitoring import receiver
from tests.monitoring.watched import wait_until
from tests.support.service import free_ports

TOKEN = "5" * 64


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "alerts.jsonl"


@pytest.fixture(scope="module")
def url(log) -> Iterator[str]:
    [port] = free_ports(1)
    token_file = log.with_name("token")
    token_file.write_text(TOKEN)
    command = [sys.executable, "-I", receiver.__file__, f"127.0.0.1:{port}", log, "--token-file", token_file]
    with subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: is_ready(f"http://127.0.0.1:{port}/-/ready"))
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def message(text: str = "", status: str = "firing", **further: Any) -> dict[str, Any]:
    """What Alertmanager sends, with `text` as the description."""
    alert = {"status": status, "labels": {"alertname": "A"}, "annotations": {"description": text}, "fingerprint": "1"}
    return {"version": "4", "status": status, "alerts": [alert]} | further


def post(url: str, document: Any = None, body: bytes | None = None, **headers: str) -> requests.Response:
    """Send a message as Alertmanager does, but for the headers given; names have underscores for dashes."""
    sent = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(message() if document is None else document).encode() if body is None else body
    return requests.post(url, data=content, headers=sent, timeout=20)


def read(log: Path) -> bytes:
    return log.read_bytes() if log.exists() else b""


def test_each_message_is_one_line_even_when_many_come_at_once(url, log):
    texts = [f"line\n{number} é\u2028" * 2000 for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: post(url, message(text)), texts))
    assert {answer.status_code for answer in answers} == {200}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["alerts"][0]["annotations"]["description"] for line in lines) == sorted(texts)
    assert all(line["received"] for line in lines)


def test_when_a_message_came_is_not_for_its_sender_to_say(url, log):
    assert post(url, message(received="1970-01-01T00:00:00+00:00")).status_code == 200
    assert json.loads(read(log).splitlines()[-1])["received"] > "2026"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (415, {"Content_Type": "text/plain"}),  # what a page may send to another site unasked
        (415, {"Content_Type": "application/x-www-form-urlencoded"}),
        (403, {"Origin": "https://stranger.example"}),
        (403, {"Origin": "null"}),
        (403, {"Host": "stranger.example:9095"}),  # a name that was bound to this address
        (403, {"Host": "127.0.0.1"}),
        (401, {"Authorization": "Bearer " + "4" * 64}),
        (401, {"Authorization": ""}),
        (411, {"Transfer_Encoding": "chunked"}),
    ],
)
def test_who_does_not_show_what_alertmanager_shows_is_rejected(url, log, status, headers):
    before = read(log)
    answer = post(url, message(status="resolved"), **headers)
    assert (answer.status_code, read(log)) == (status, before), answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"7",
        b"\xff",
        b"{}",
        b'{"version": "4", "status": "resolved", "alerts": []}',
        json.dumps(message() | {"version": "3"}).encode(),
        json.dumps(message() | {"alerts": [{}]}).encode(),
        json.dumps(message(status="ended")).encode(),
        b"[" * 500_000,
        b'{"version": "4", "deep": ' + b"[" * 900 + b"]" * 900 + b"," + json.dumps(message()).encode()[1:-1],
        json.dumps(message(further=float("nan"))).encode(),
        json.dumps(message("\ud800")).encode(),
    ],
)
def test_what_is_no_message_is_rejected_and_not_logged(url, log, body):
    before = read(log)
    answer = post(url, body=body)
    assert (answer.status_code, read(log)) == (400, before), answer.text


def test_a_message_of_any_size_is_bounded(url, log):
    before = read(log)
    assert post(url, message("x" * 2**20)).status_code == 413
    # Less than a megabyte of UTF-8 that would be three as it is written.
    wide = json.dumps(message("é" * 500_000), ensure_ascii=False).encode()
    assert post(url, body=wide).status_code == 413
    assert read(log) == before
    assert "at most" in post(url, body=b"", Content_Length="999999999999").text


def test_a_slow_sender_holds_a_connection_for_seconds_only(url, log):
    host, port = urlsplit(url).hostname, urlsplit(url).port
    head = f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    begun = time.monotonic()
    with socket.create_connection((host, port), timeout=30) as slow:
        slow.sendall(head)
        slow.settimeout(1)
        while time.monotonic() < begun + 30:
            try:
                slow.sendall(b"X")  # a header that does not end
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - begun < 20


def test_many_connections_that_send_nothing_do_not_keep_alertmanager_out_for_long(url, log):
    address = (urlsplit(url).hostname, urlsplit(url).port)
    idle = [socket.create_connection(address, timeout=5) for _ in range(60)]
    try:
        wait_until(lambda: accepts(url), seconds=30)
    finally:
        for connection in idle:
            connection.close()


def accepts(url: str) -> bool:
    try:
        return post(url).status_code == 200
    except requests.ConnectionError:
        return False


def test_a_log_that_cannot_be_written_is_an_error_that_alertmanager_repeats(url, log):
    log.unlink(missing_ok=True)
    log.mkdir()
    try:
        assert post(url).status_code == 500
    finally:
        log.rmdir()
    assert post(url).status_code == 200


def test_the_log_is_turned_over_and_bounded_in_all(tmp_path):
    log = receiver.AlertLog(tmp_path / "alerts.jsonl")
    for number in range(50):
        log.append(message(f"{number}" + "x" * 1_000_000))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["alerts.jsonl", "alerts.jsonl.1", "alerts.jsonl.2", "alerts.jsonl.3"]
    assert sum(file.stat().st_size for file in files) < 33 * 2**20
    kept = [json.loads(line) for file in reversed(files) for line in file.read_bytes().splitlines()]
    numbers = [line["alerts"][0]["annotations"]["description"].rstrip("x") for line in kept]
    assert numbers == [str(number) for number in range(50 - len(kept), 50)]
