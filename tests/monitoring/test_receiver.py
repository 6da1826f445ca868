"""The log of alerts, as Alertmanager meets it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from monitoring import receiver
from tests.e2e.service import free_ports
from tests.monitoring.watched import wait_until


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "alerts.jsonl"


@pytest.fixture(scope="module")
def url(log) -> Iterator[str]:
    [port] = free_ports(1)
    command = [sys.executable, "-I", receiver.__file__, f"127.0.0.1:{port}", str(log)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
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


def test_each_message_is_one_line_even_when_many_come_at_once(url, log):
    texts = [f"line\n{number} é" * 2000 for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: requests.post(url, json={"text": text}, timeout=10), texts))
    assert {answer.status_code for answer in answers} == {200}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["text"] for line in lines) == sorted(texts)
    assert all(line["received"] for line in lines)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"7", b"\xff"])
def test_what_is_no_message_is_refused_and_not_logged(url, log, body):
    before = log.read_bytes() if log.exists() else b""
    assert requests.post(url, data=body, timeout=10).status_code == 400
    assert (log.read_bytes() if log.exists() else b"") == before


def test_a_log_that_cannot_be_written_is_an_error_that_alertmanager_repeats(url, log):
    log.unlink(missing_ok=True)
    log.mkdir()
    try:
        assert requests.post(url, json={}, timeout=10).status_code == 500
    finally:
        log.rmdir()
    assert requests.post(url, json={}, timeout=10).status_code == 200
