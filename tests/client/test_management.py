"""Management calls that get no answer, or a strange one; tests/e2e/test_management.py asks a real TorchServe."""

import json

import pytest

from cifar.client import connection, management
from cifar.client.management import ManagementClient
from cifar.common.errors import RequestRejected, ServerError, ServerUnreachable, TokenRejected, UnexpectedAnswer
from tests.support.fake_server import Reply

VERSION = {
    "modelName": "cifar",
    "modelVersion": "1.0",
    "modelUrl": "cifar-1.0.mar",
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 16,
    "maxBatchDelay": 1,
    "responseTimeout": 30,
    "workers": [{"id": "9000", "startTime": "2026-11-23T20:07:03.958Z", "status": "READY", "pid": 31098}],
    "jobQueueStatus": {"remainingCapacity": 93, "pendingRequests": 7},
}


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setattr(management, "_PAUSE_S", 0.01)
    with ManagementClient(server.url, timeout_s=5) as client:
        yield client


def fail_first(server, replies, then):
    """Give these replies first, then always the last one."""
    rest = list(replies)
    server.reply = lambda _: rest.pop(0) if rest else Reply(200, json.dumps(then).encode())


@pytest.mark.parametrize("failure", [None, Reply(500, b"{}"), Reply(503, b"<html>busy</html>")])
def test_what_only_reads_is_asked_again(client, server, failure):
    fail_first(server, [failure, failure], [VERSION])
    assert client.describe().queue_length == 7
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("call", "times"),
    [
        (lambda client: client.describe("1.0"), 3),
        (lambda client: list(client.list_models()), 3),
        (lambda client: client.scale("1.0", 2), 3),
        (lambda client: client.set_default("1.0"), 3),
        (lambda client: client.register("cifar-1.0.mar"), 1),
        (lambda client: client.unregister("1.0"), 1),
    ],
)
def test_what_may_have_happened_already_is_not_asked_again(client, server, call, times):
    server.close_without_answer()
    with pytest.raises(ServerUnreachable):
        call(client)
    assert len(server.requests) == times


def test_a_rejection_is_not_asked_again(client, server):
    server.answer_json(400, {"code": 400, "type": "BadRequestException", "message": "no"})
    with pytest.raises(RequestRejected, match=r"no \(400 BadRequestException"):
        client.describe()
    assert len(server.requests) == 1


def test_failing_server_is_quoted(client, server):
    server.answer_json(500, {"code": 500, "type": "InternalServerException", "message": "out of memory"})
    with pytest.raises(ServerError, match="500: out of memory"):
        client.unregister("1.0")


@pytest.mark.parametrize(
    "workers",
    [[], [VERSION["workers"][0] | {"status": "UNLOADING"}], [VERSION["workers"][0]]],  # type: ignore[index]
)
def test_a_version_without_all_its_workers_is_not_ready(client, server, workers):
    server.answer_json(200, [VERSION | {"workers": workers}])
    assert not client.describe().ready
    server.answer_json(200, [VERSION | {"workers": VERSION["workers"] * 2}])  # type: ignore[operator]
    assert client.describe().ready


def test_all_pages_are_read(client, server):
    def page(request):
        start = int(request.query.get("next_page_token", ["0"])[0])
        more = {} if start == 4 else {"nextPageToken": str(start + 2)}
        models = [{"modelName": f"m{index}"} for index in range(start, start + 2)]
        return Reply(200, json.dumps({"models": models, **more}).encode())

    server.reply = page
    assert list(client.list_models(page_size=2)) == [f"m{index}" for index in range(6)]
    assert [request.query["limit"] for request in server.requests] == [["2"]] * 3


@pytest.mark.parametrize(
    ("document", "call"),
    [
        ("[]", lambda client: client.list_models().__next__()),
        ("{}", lambda client: client.describe()),
        ("[{}]", lambda client: client.describe()),
        ("[]", lambda client: client.describe()),
        ("[{}]", lambda client: client.describe_handler()),
        ("[]", lambda client: client.describe_handler()),
        ("<html>", lambda client: client.describe()),
    ],
)
def test_answer_of_another_program_is_unexpected(client, server, document, call):
    server.answer(200, document.encode())
    with pytest.raises(UnexpectedAnswer, match="another program may listen"):
        call(client)


@pytest.mark.parametrize(
    "archive",
    ["http://host/cifar.mar", "file:///etc/cifar.mar", "../cifar.mar", "a/cifar.mar", ".mar", "cifar.war", "cifar", ""],
)
def test_only_an_archive_in_the_model_store_is_registered(client, server, archive):
    with pytest.raises(ValueError, match="model store"):
        client.register(archive)
    assert server.requests == []


@pytest.mark.parametrize("call", [lambda client: client.scale("1.0", -1), lambda client: next(client.list_models(0))])
def test_numbers_out_of_range_are_rejected_before_anything_is_sent(client, server, call):
    with pytest.raises(ValueError, match="expected at least"):
        call(client)
    assert server.requests == []


def test_versions_stand_in_the_path_whatever_they_hold(client, server):
    server.answer_json(200, [VERSION])
    client.describe("../1.0 x")
    assert server.requests[0].path == "/models/cifar/..%2F1.0%20x"


REJECTED = Reply(400, json.dumps({"code": 400, "type": "InvalidKeyException", "message": "no"}).encode())


def key_file(folder, token):
    file = folder / "key_file.json"
    file.write_text(json.dumps({"management": {"key": token}, "API": {"key": "api"}}))
    return file


def test_token_of_the_variable_is_shown(server, monkeypatch):
    monkeypatch.setenv("CIFAR_MANAGEMENT_TOKEN", "secret")
    server.answer_json(200, [VERSION])
    with ManagementClient(server.url) as client:
        client.describe()
    assert server.requests[0].token == "Bearer secret"


def test_without_a_token_none_is_shown_and_the_rejection_says_where_to_find_one(client, server):
    server.reply = lambda _: REJECTED
    with pytest.raises(TokenRejected, match="CIFAR_MANAGEMENT_TOKEN, or CIFAR_KEY_FILE"):
        client.describe()
    assert [request.token for request in server.requests] == [None]


def test_rejected_token_of_the_variable_is_not_renewed(server, monkeypatch, tmp_path):
    monkeypatch.setenv("CIFAR_MANAGEMENT_TOKEN", "old")
    monkeypatch.setenv("CIFAR_KEY_FILE", str(key_file(tmp_path, "other")))
    server.reply = lambda _: REJECTED
    with ManagementClient(server.url) as client, pytest.raises(TokenRejected):
        client.describe()
    assert [request.token for request in server.requests] == ["Bearer old"]


def test_a_server_that_never_takes_the_new_token_is_asked_a_few_times_only(server, monkeypatch, tmp_path):
    file = key_file(tmp_path, "0")
    monkeypatch.setenv("CIFAR_KEY_FILE", str(file))

    def reply(request):
        if request.path == "/token":
            key_file(tmp_path, f"{len(server.requests)}")
            return Reply(200, b" ")
        return REJECTED

    server.reply = reply
    with ManagementClient(server.url) as client, pytest.raises(TokenRejected):
        client.describe()
    asked = [request.token for request in server.requests if request.path != "/token"]
    assert len(asked) == len(set(asked)) == connection._ATTEMPTS


def test_the_own_servers_token_is_not_shown_to_another_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("cifar.client.tokens.KEY_FILE", key_file(tmp_path, "mine"))
    assert ManagementClient("http://127.0.0.1:1")._tokens.headers == {"Authorization": "Bearer mine"}
    assert ManagementClient("http://192.0.2.1:1")._tokens.headers == {}
