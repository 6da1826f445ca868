"""Watching a new default: what counts as its failure, and what does not."""

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

from cifar.archives.reference_outputs import ReferenceOutputs, find_difference
from cifar.client.inference import InferenceClient
from cifar.client.management import ManagementClient
from cifar.common.errors import DeploymentFailed
from cifar.deployment import verification
from cifar.deployment.verification import Counts, check_parity, read_counts, watch
from tests.client.test_management import VERSION
from tests.support.fake_server import NAMES, FakeServer, Reply, Request, red_corner

IMAGES = np.zeros((10, 32, 32, 3), np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(10)
# What `red_corner` answers: 0.75 for its class, a third of that for the next, and so on.
PROBABILITIES = np.array([[0.75 / 3 ** ((name - image) % 10) for name in range(10)] for image in range(10)], np.float32)
REFERENCE = ReferenceOutputs(IMAGES, PROBABILITIES, tuple(NAMES))


def metrics(counts: Counts) -> bytes:
    """As TorchServe writes them: requests by how the version was named, answers by version."""
    unnamed = counts.requests - 10
    return (
        f'ts_inference_requests_total{{model_name="cifar",model_version="default",hostname="h",}} {unnamed}\n'
        f'ts_inference_requests_total{{model_name="cifar",model_version="1.0",hostname="h",}} 10.0\n'
        f'cifar_batch_size_sum{{model_version="1.0",ModelName="cifar",Level="Model",Hostname="h",}} {counts.answered}\n'
        f'cifar_failed_requests_total{{model_version="1.0",ModelName="cifar",Level="Model",}} {counts.failed}\n'
        f'Requests2XX{{Level="Host",Hostname="h",}} 1.0E9\nRequests5XX{{Level="Host",Hostname="h",}} {counts.all_5xx}\n'
    ).encode()


class Server(FakeServer):
    """Inference, management and metrics in one; failures are put in by the tests."""

    def __init__(self) -> None:
        super().__init__()
        self.predictions = 0
        self.predict = red_corner
        self.pid = 1
        self.counts = Counts(requests=1000, answered=1000, failed=0, all_5xx=0)
        self.reply = self._reply

    def _reply(self, request: Request) -> Reply | None:
        if request.path == "/metrics":
            return Reply(200, metrics(self.counts))
        if request.path.startswith("/models"):
            worker = {"id": "9000", "startTime": "2026-11-23T20:07:03.958Z", "status": "READY", "pid": self.pid}
            return Reply(200, json.dumps([VERSION | {"minWorkers": 1, "workers": [worker]}]).encode())
        self.predictions += 1
        return self.predict(request)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(verification, "_PAUSE_S", 0.001)
    monkeypatch.setattr(verification, "_COUNTED_AFTER_S", 0.01)
    fake = Server()
    yield fake
    fake.stop()


def run(server: Server, seconds: float = 10, version: str = "1.0") -> int:
    with ManagementClient(server.url) as management, InferenceClient(server.url) as inference:
        return watch(server.url, management, inference, version, REFERENCE, seconds)


def test_a_good_version_is_asked_until_the_time_is_up(server):
    assert run(server, seconds=1) == server.predictions > 3
    assert run(server, seconds=0) == 1


def test_an_answer_of_another_version_is_a_failure(server):
    with pytest.raises(DeploymentFailed, match=r"Version 2\.0 is the default, and 1\.0 answered"):
        run(server, version="2.0")


def test_a_wrong_answer_is_a_failure_at_once(server):
    def later_wrong(request: Request) -> Reply:
        body = request.body if server.predictions < 4 else bytes([7]) + request.body[1:]
        return red_corner(Request(**{**vars(request), "body": body}))

    server.predict = later_wrong
    with pytest.raises(DeploymentFailed, match=r"answers otherwise than when it was exported: image 0 of 1 gets"):
        run(server)
    assert server.predictions == 4


def test_a_worker_that_was_replaced_is_a_failure(server):
    def die(request: Request) -> Reply:
        server.pid = 2 if server.predictions == 3 else 1
        return red_corner(request)

    server.predict = die
    with pytest.raises(DeploymentFailed, match=r"lost a worker: it had the processes \{'9000': 1\}, now \{'9000': 2\}"):
        run(server)


def test_now_and_then_a_full_queue_is_none_but_many_are(server):
    busy = Reply(503, b'{"code": 503, "type": "ServiceUnavailableException", "message": "no worker"}')
    server.predict = lambda request: busy if server.predictions in (2, 5) else red_corner(request)
    assert run(server, seconds=1.5) > 5
    server.predictions = 0
    server.predict = lambda request: busy if server.predictions % 2 else red_corner(request)
    with pytest.raises(DeploymentFailed, match=r"failed on 3 of 5 known images: .*503"):
        run(server)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        # No worker took them: a full queue, or workers that died.
        (Counts(1100, 1060, 0, 40), "40 of 100 predictions were answered with 5xx; at most 1% were expected"),
        (Counts(1100, 1100, 40, 40), "40 of 100 predictions were answered with 5xx"),  # workers answered 5xx
        (Counts(1100, 1090, 30, 40), "40 of 100 predictions"),  # both
        (Counts(1100, 1096, 0, 4), None),  # a few
        (Counts(1100, 1100, 0, 200), None),  # HTTP/2 prefaces, and whatever else is no prediction
        (Counts(1000, 1000, 0, 200), None),
        (Counts(1100, 1060, 0, 0), None),  # still in the queue
    ],
)
def test_what_others_are_answered_counts(server, counts, told):
    def count(request: Request) -> Reply:
        server.counts = counts
        return red_corner(request)

    server.predict = count
    if told is None:
        assert run(server, seconds=0.2)
    else:
        with pytest.raises(DeploymentFailed, match=told):
            run(server, seconds=0.2)


def test_counters_are_read_and_their_absence_is_none(server, closed_url):
    assert read_counts(server.url) == Counts(1000, 1000, 0, 0)
    assert read_counts(None) is None
    assert read_counts(closed_url) is None
    server.reply = lambda _: Reply(200, b"")  # metrics_mode=log
    assert read_counts(server.url) is None


@pytest.fixture
def closed_url() -> str:
    fake = FakeServer()
    fake.stop()
    return fake.url


def test_parity_is_checked_in_three_kinds_of_body(server):
    with InferenceClient(server.url) as inference:
        assert check_parity(inference, "1.0", REFERENCE) == 10
        kinds = [request.content_type for request in server.requests]
        assert kinds == ["application/octet-stream", "application/json", "image/png"]
        assert {request.path for request in server.requests} == {"/predictions/cifar/1.0"}
        with pytest.raises(DeploymentFailed, match=r"Version 2\.0 was asked, and 1\.0 answered"):
            check_parity(inference, "2.0", REFERENCE)


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "image/png"])
def test_a_difference_in_any_kind_of_body_is_a_failure(server, kind):
    def wrong(request: Request) -> Reply:
        if request.content_type != kind:
            return red_corner(request)
        answer = json.loads(red_corner(request).body)
        for entry in answer.get("predictions", [answer]):
            entry["top_k"][0]["confidence"] += 0.01
        return Reply(200, json.dumps(answer).encode(), {"X-Model-Version": "1.0"})

    server.predict = wrong
    with InferenceClient(server.url) as inference, pytest.raises(DeploymentFailed, match="answers otherwise"):
        check_parity(inference, "1.0", REFERENCE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda got: got[:, :9], r"the answer has the shape \(10, 9\), expected \(10, 10\)"),
        (lambda got: got * np.nan, "no finite numbers"),
        (lambda got: got + 0.006, r"at most 0\.005 apart"),
        (lambda got: got + 0.004, None),
        (lambda got: got, None),
    ],
)
def test_differences_are_told_beyond_the_tolerance(change, told):
    found = find_difference(PROBABILITIES, change(PROBABILITIES.astype(float)))
    assert (found is None) if told is None else re.search(told, found or "")
