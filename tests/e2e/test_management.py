"""The management API of a real TorchServe: two versions come, change places and go; and tokens."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests
import torch

from cifar.client.inference import InferenceClient
from cifar.client.management import ManagementClient, ModelVersion
from cifar.client.tokens import Tokens
from cifar.common.errors import ModelNotFound, RequestRejected, TokenRejected, VersionExists, VersionIsDefault
from cifar.server.torchserve import TorchServe
from tests.support.service import BIN, Service, build_archive, free_ports, write_config
from tests.support.tiny import copy_handler, tiny_archive
from training.model import ModelParams, build_classifier
from training.weights import save_weights


@pytest.fixture(scope="module")
def second_archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("second")
    torch.manual_seed(8)
    weights = folder / "best_cnn_model.pth"
    save_weights(build_classifier(ModelParams()).network.state_dict(), weights)
    return build_archive(weights, "2.0", folder)


@pytest.fixture(scope="module")
def service(archive, second_archive, tmp_path_factory) -> Iterator[Service]:
    """A server with 1.0, and the archive of 2.0 beside it in its model store."""
    folder = tmp_path_factory.mktemp("management")
    store = folder / "model_store"
    store.mkdir()
    for file in (archive, second_archive):
        shutil.copy(file, store)
    (store / "cifar-3.0.mar").write_bytes(archive.read_bytes()[:-100])
    server = TorchServe(folder / "run", write_config(folder), store, [f"cifar={archive.name}"])
    server.start()
    try:
        yield Service(server)
    finally:
        server.stop()


@pytest.fixture
def management(service) -> Iterator[ManagementClient]:
    with ManagementClient(service.management_url) as client:
        yield client


def wait_until_ready(management: ManagementClient, version: str, workers: int) -> ModelVersion:
    deadline = time.monotonic() + 90
    while True:
        described = management.describe(version)
        if described.ready and len(described.workers) == workers:
            return described
        assert time.monotonic() < deadline, described
        time.sleep(0.1)


def test_the_server_describes_what_it_serves(management, archive):
    assert list(management.list_models()) == ["cifar"]
    described = management.describe()
    assert (described.name, described.version, described.archive) == ("cifar", "1.0", archive.name)
    assert (described.min_workers, described.max_workers, described.batch_size) == (2, 2, 16)
    assert (described.queue_length, described.queue_capacity) == (0, 1000)
    assert described.ready
    for worker in described.workers:
        assert worker.pid is not None
        os.kill(worker.pid, 0)  # is there
    assert management.describe_handler()["version"] == "1.0"


def test_a_second_version_comes_becomes_the_default_and_goes(management, service, images):
    management.register("cifar-2.0.mar")
    with pytest.raises(VersionExists):
        management.register("cifar-2.0.mar")
    try:
        assert len(wait_until_ready(management, "2.0", 2).workers) == 2
        assert [described.version for described in management.describe_all()] == ["1.0", "2.0"]
        with InferenceClient(service.url) as inference:
            assert inference.predict(images).model_version == "1.0"
            assert inference.predict(images, version="2.0").model_version == "2.0"
            management.set_default("2.0")
            assert inference.predict(images).model_version == "2.0"
        assert management.describe().version == "2.0"
        with pytest.raises(VersionIsDefault):
            management.unregister("2.0")
        management.set_default("1.0")
    finally:
        management.unregister("2.0")
    assert [described.version for described in management.describe_all()] == ["1.0"]


def test_workers_come_and_go(management):
    management.scale("1.0", 1)
    assert len(wait_until_ready(management, "1.0", 1).workers) == 1
    management.scale("1.0", 2)
    assert len(wait_until_ready(management, "1.0", 2).workers) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda management: management.describe("7"),
        lambda management: management.set_default("7"),
        lambda management: management.unregister("7"),
        lambda management: management.scale("7", 1),
        lambda management: management.describe_handler("7"),
    ],
)
def test_a_version_that_is_not_there_is_named(management, call):
    with pytest.raises(ModelNotFound, match="7"):
        call(management)


def test_an_archive_that_is_not_in_the_store_is_named(management):
    with pytest.raises(RequestRejected, match=r"has no cifar-9\.mar"):
        management.register("cifar-9.mar")


def test_status_tells_all_versions_and_whether_they_are_ready(management, service):
    def cifar_status(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "cifar"), "status", "--management-url", service.management_url, *arguments]
        return subprocess.run(command, env=os.environ | {"COLUMNS": "80"}, capture_output=True, text=True, timeout=60)

    management.register("cifar-2.0.mar")
    try:
        wait_until_ready(management, "2.0", 2)
        done = cifar_status("--json")
        assert done.returncode == 0, done.stderr
        one, two = json.loads(done.stdout)["versions"]
        assert (one["version"], one["default"], one["archive"]) == ("1.0", True, "cifar-1.0.mar")
        assert (two["version"], two["default"], two["ready_workers"], two["workers"]) == ("2.0", False, 2, 2)
        assert one["about"]["weights_digest"] != two["about"]["weights_digest"]
        assert one["started"] < two["started"]

        management.scale("2.0", 0)
        deadline = time.monotonic() + 30
        while management.describe("2.0").workers:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        done = cifar_status()
        assert done.returncode == 1
        [first] = [line for line in done.stdout.splitlines() if "1.0" in line]
        [second] = [line for line in done.stdout.splitlines() if "2.0" in line]
        assert ("default" in first, "2 of 2" in first) == (True, True)
        assert one["about"]["weights_digest"][:12] in first
        assert ("default" in second, "0 of 0" in second) == (False, True)
    finally:
        management.unregister("2.0")


def test_status_of_no_server_says_so(tmp_path):
    done = subprocess.run(
        [str(BIN / "cifar"), "status", "--management-url", "http://127.0.0.1:1"], capture_output=True, text=True
    )
    assert (done.returncode, "nothing listens there" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_every_command_works_over_tcp_with_tokens(archive, tmp_path, images):
    """The three settings that docs/adr/0016 names are all that it takes."""
    config = write_config(tmp_path)
    text, [port] = config.read_text(), free_ports(1)
    for own, instead in (
        (f"management_address=unix:{tmp_path}/management.sock", f"management_address=http://127.0.0.1:{port}"),
        ("grpc_management_address=127.255.255.255", "grpc_management_address=127.0.0.1"),
        ("disable_token_authorization=true", "disable_token_authorization=false"),
    ):
        assert text.count(own) == 1
        text = text.replace(own, instead)
    config.write_text(text)
    store, run_dir = tmp_path / "model_store", tmp_path / "run"
    store.mkdir()
    shutil.copy(archive, store)
    server = TorchServe(run_dir, config, store)
    key_file = run_dir / "key_file.json"

    def cifar(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "cifar"), *map(str, arguments)]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)

    try:
        done = cifar("up", "--run-dir", run_dir, "--config", config, "--model-store", store)
        assert done.returncode == 0, done.stderr
        predict = ("predict", "--url", server.addresses.inference)
        done = cifar(*predict)
        assert (done.returncode, "CIFAR_KEY_FILE" in done.stderr) == (1, True)
        done = cifar(*predict, CIFAR_KEY_FILE=str(key_file))
        assert done.returncode == 0, done.stderr

        where = ("--run-dir", run_dir, "--config", config, "--model-store", store)
        archive_of_two = tiny_archive(tmp_path / "two", "2.0", 2, copy_handler(tmp_path / "handler"))
        for command in (
            ("deploy", archive_of_two, "--watch-s", 0, *where),
            ("scale", "2.0", 2, *where),
            ("rollback", *where),
            ("undeploy", "2.0", *where),
        ):
            done = cifar(*command)  # finds the key file in the run folder
            assert done.returncode == 0, done.stdout + done.stderr
        url = server.addresses.management
        done = cifar("status", "--management-url", url, CIFAR_KEY_FILE=str(key_file))
        assert done.returncode == 0, done.stderr
        with ManagementClient(url) as stranger, pytest.raises(TokenRejected):
            stranger.describe()
        # What a page in a browser can send; it cannot know a token.
        for method, path in (("POST", "/models?url=cifar-1.0.mar&model_name=other"), ("DELETE", "/models/cifar/1.0")):
            headers = {"Content-Type": "text/plain", "Origin": "http://stranger.example", "Host": "stranger.example"}
            rejected = requests.request(method, url + path, headers=headers, data=b"{}", timeout=30)
            assert (rejected.status_code, rejected.json()["type"]) == (400, "InvalidKeyException")
        with grpc.insecure_channel(
            "127.0.0.1:{1}".format(*server.addresses.endpoints["grpc_management_port"])
        ) as channel:
            list_models = channel.unary_unary("/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels")
            with pytest.raises(grpc.RpcError) as denied:
                list_models(b"", timeout=30)
            assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED
        tokens, others = Tokens("management", key_file, url), Tokens("management", key_file, url)
        before = json.loads(key_file.read_text())["management"]["key"]
        with ManagementClient(url, tokens=tokens) as one, ManagementClient(url, tokens=others) as other:
            assert one.describe().version == "1.0"
            # What expiry looks like: the token is rejected, and the API key gets another.
            assert tokens.renew()
            assert json.loads(key_file.read_text())["management"]["key"] != before
            assert one.describe().version == "1.0"
            assert other.describe().version == "1.0"
            file = json.loads(key_file.read_text())
            key_file.write_text(json.dumps(file | {"management": {"key": "expired"}}))
            with ManagementClient(url, tokens=Tokens("management", key_file, url)) as third:
                assert third.describe().version == "1.0"
        inference = Tokens("inference", key_file, url)
        key_file.write_text(json.dumps(json.loads(key_file.read_text()) | {"API": {"key": "of another server"}}))
        assert not inference.renew()
        with InferenceClient(server.addresses.inference, tokens=Tokens("inference", key_file, url)) as client:
            assert client.predict(images).model_version == "1.0"
    finally:
        server.stop()
    assert not key_file.exists()
