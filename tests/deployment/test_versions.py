"""What a real TorchServe does not do on demand: full queues, a DELETE that fails, workers that stay away."""

import copy
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from cifar.client.management import ManagementClient
from cifar.common.errors import DeploymentFailed, NotDrained, ServerError
from cifar.common.files import digest_file
from cifar.deployment import versions
from cifar.deployment.observed_state import find_mismatches, read_status
from cifar.deployment.versions import drain, remove, wait_until_ready
from cifar.server.desired_state import DesiredState, PendingDeployment, ServedVersion, write_desired_state
from tests.client.test_management import VERSION
from tests.support.fake_server import FakeServer, Reply, Request

GONE = Reply(404, b'{"code": 404, "type": "ModelVersionNotFoundException", "message": "no version 1.0"}')
FAILED = Reply(500, b'{"code": 500, "type": "InternalServerException", "message": "Timed out"}')
DONE = Reply(200, b'{"status": "done"}')


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture
def management(server, monkeypatch) -> Iterator[ManagementClient]:
    monkeypatch.setattr(versions, "_POLL_S", 0.01)
    with ManagementClient(server.url, timeout_s=5, attempts=1) as client:
        yield client


def described(queue: int = 0, **changes: Any) -> Reply:
    entry = copy.deepcopy(VERSION) | {"minWorkers": 1, "maxWorkers": 1} | changes
    entry["jobQueueStatus"] = {"remainingCapacity": 100 - queue, "pendingRequests": queue}
    return Reply(200, json.dumps([entry]).encode())


def in_turn(server: FakeServer, *replies: Reply) -> None:
    """Give these replies one after the other, the last one for ever."""
    rest = list(replies)
    server.reply = lambda _: rest.pop(0) if len(rest) > 1 else rest[0]


def test_a_version_is_drained_when_its_queue_is_empty(management, server):
    in_turn(server, described(7), described(1), described(0))
    drain(management, "1.0", drain_grace_s=0)
    assert len(server.requests) == 3


def test_a_version_whose_queue_does_not_empty_is_left_where_it_is(management, server, monkeypatch):
    monkeypatch.setattr(versions, "_DRAIN_TIMEOUT_S", 0.1)
    in_turn(server, described(4))
    with pytest.raises(
        NotDrained, match=r"4 requests still wait for version 1\.0 after 0\.1 s: clients ask for it by name"
    ):
        drain(management, "1.0", drain_grace_s=0)


@pytest.mark.parametrize("answers", [[DONE], [GONE], [FAILED, GONE], [FAILED, FAILED, DONE], [None, GONE]])
def test_a_version_is_removed_although_the_server_says_500(management, server, answers):
    in_turn(server, *answers)
    remove(management, "1.0")
    assert [request.method for request in server.requests] == ["DELETE"] * len(answers)


def test_a_version_that_cannot_be_removed_is_told(management, server):
    in_turn(server, FAILED)
    with pytest.raises(ServerError, match="Timed out"):
        remove(management, "1.0")
    assert len(server.requests) == 5


def worker(pid: int, status: str = "UNLOADING") -> dict[str, object]:
    return {"id": "9000", "startTime": "2026-11-23T20:07:03.958Z", "status": status, "pid": pid}


def test_one_death_while_loading_is_an_accident_and_two_are_a_failure(management, server, tmp_path):
    log = tmp_path / "console.log"
    log.write_text("W-9000-cifar_1.0-stdout MODEL_LOG - of another deployment\n")
    in_turn(
        server, described(workers=[worker(1)]), described(workers=[worker(2)]), described(workers=[worker(2, "READY")])
    )
    assert wait_until_ready(management, "1.0", 10, log).ready

    def die_again(request: Request) -> Reply:
        with log.open("a") as file:
            file.write("2026 [INFO ] W-9000-cifar_1.0-stdout MODEL_LOG - ImportError: no pixels\n")
            file.writelines(["2026 [INFO ] W-9000-cifar_1.0-stdout MODEL_LOG -     a traceback that goes on\n"] * 20)
            file.write("2026 [INFO ] W-9001-cifar_2.0-stdout MODEL_LOG - all is well\n")
        return described(workers=[worker(len(server.requests))])

    server.reply = die_again
    with pytest.raises(
        DeploymentFailed, match=r"worker died 2 times while it loaded(?s:.*)ImportError: no pixels"
    ) as error:
        wait_until_ready(management, "1.0", 10, log)
    assert "another deployment" not in str(error.value)
    assert "all is well" not in str(error.value)


@pytest.mark.parametrize("log", [None, "none.log"])
def test_workers_that_do_not_come_in_time_are_a_failure(management, server, tmp_path, log):
    in_turn(server, described(minWorkers=2, workers=[worker(1, "READY"), worker(-1)]))
    told = r"1 of 2 workers were READY after 0\.1 s\. The server's log says why"
    with pytest.raises(DeploymentFailed, match=told):
        wait_until_ready(management, "1.0", 0.1, tmp_path / log if log else None)


@pytest.fixture
def store(tmp_path):
    for version in ("1.0", "2.0"):
        (tmp_path / f"cifar-{version}.mar").write_text(version)
    return tmp_path


def served(store, version: str, workers: int | None = None) -> ServedVersion:
    archive = f"cifar-{version}.mar"
    return ServedVersion(version, archive, digest_file(store / archive), workers=workers)


def differences(server, management, store, *found: str) -> list[str]:
    """What is told where the server has these versions, the first of them as its default."""
    entries = [
        copy.deepcopy(VERSION) | {"modelVersion": version, "modelUrl": f"cifar-{version}.mar", "workers": []}
        for version in found
    ]

    def reply(request: Request) -> Reply:
        return Reply(200, json.dumps(entries if request.path.endswith("/all") else entries[:1]).encode())

    server.reply = reply
    return find_mismatches(read_status(management), store)


def test_status_names_every_difference(server, management, store):
    assert differences(server, management, store, "1.0") == []  # nothing was ever deployed
    one, two = served(store, "1.0"), served(store, "2.0", workers=3)
    write_desired_state(store, DesiredState("2.0", (one, two)))
    assert differences(server, management, store, "1.0", "3.0") == [
        "The default is 1.0, and should be 2.0. `cifar up` makes it so.",
        "Version 2.0 is not served, and should be. `cifar up` registers it.",
        "Version 3.0 is served from 'cifar-3.0.mar', and was not deployed. `cifar undeploy 3.0` takes it away.",
    ]
    assert differences(server, management, store, "2.0", "1.0") == [
        "Version 2.0 has 2 workers, and should have 3. `cifar up` makes it so."
    ]
    write_desired_state(
        store, DesiredState("1.0", (one,), underway=PendingDeployment("2.0", "cifar-2.0.mar", two.sha256, True, True))
    )
    [told] = differences(server, management, store, "1.0", "2.0")
    assert told.startswith(
        "The deployment of version 2.0 was interrupted: `cifar deploy` with the same archive finishes it"
    )
    write_desired_state(store, DesiredState("1.0", (one,)))
    (store / "cifar-1.0.mar").write_text("changed")
    [told] = differences(server, management, store, "1.0")
    assert "is not what was deployed as version 1.0" in told
    (store / "serving.json").write_text("{")
    [told] = differences(server, management, store, "1.0")
    assert "serving.json does not say what should be served" in told


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("minWorkers: 2\nmaxWorkers: 2", None),
        ("minWorkers: 4\nmaxWorkers: 4", "has 2 workers, and should have 4. `cifar scale 1.0 4` makes it so."),
        ("minWorkers: 2\nmaxWorkers: 3", "has 2 workers, and should have 2 to 3. `cifar scale 1.0 2` makes it so."),
        ("minWorkers: 0", None),  # TorchServe counts the CPUs
    ],
)
@pytest.mark.parametrize("deployed", [True, False])
def test_status_compares_workers_with_what_the_archive_asks_for(server, management, tmp_path, config, told, deployed):
    manifest = {"model": {"modelName": "cifar", "modelVersion": "1.0", "configFile": "model-config.yaml"}}
    with zipfile.ZipFile(tmp_path / "cifar-1.0.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model-config.yaml", config)
    if deployed:
        write_desired_state(tmp_path, DesiredState("1.0", (served(tmp_path, "1.0"),)))
    expected = [f"Version 1.0 {told}"] if told else []
    assert differences(server, management, tmp_path, "1.0") == expected
