"""Deployments to a real TorchServe: they work, they fail, they are killed; clients notice nothing of it."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks.steady_load import SteadyLoad
from cifar.archives.signing import sign_archive
from cifar.client.management import ManagementClient
from cifar.common.errors import (
    ArchiveRejected,
    ArchiveUnusable,
    CifarError,
    ConfigUnusable,
    DeploymentFailed,
    ModelNotFound,
    NothingToRollBackTo,
    ServerUnreachable,
    VersionIsDefault,
    VersionTaken,
)
from cifar.common.project import ROOT
from cifar.deployment.deploy import Change, DeployOptions, deploy
from cifar.deployment.observed_state import find_mismatches, read_status
from cifar.deployment.rollback import rollback
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target
from cifar.deployment.undeploy import scale, undeploy
from cifar.server.desired_state import forget_desired_state, read_desired_state
from cifar.server.torchserve import TorchServe
from tests.support.keys import write_pair
from tests.support.service import BIN, write_config
from tests.support.tiny import copy_handler, tiny_archive

QUICK = DeployOptions(watch_s=0.5, drain_grace_s=0.2)


@dataclass(frozen=True)
class Site:
    """A running server, and archives to deploy to it."""

    server: TorchServe
    archives: dict[str, Path]

    @property
    def target(self) -> Target:
        addresses = self.server.addresses
        log = self.server.run_dir / "logs" / "torchserve.log"
        return Target(self.server.model_store, addresses.management, addresses.inference, addresses.metrics, log)

    def deploy(self, version: str, options: DeployOptions = QUICK) -> Change:
        return deploy(self.archives[version], self.target, Steps(), options)

    def rollback(self, options: DeployOptions = QUICK) -> Change:
        return rollback(self.target, Steps(), options)

    def undeploy(self, version: str) -> None:
        undeploy(version, self.target, Steps(), QUICK)

    def load(self, clients: int = 4) -> SteadyLoad:
        return SteadyLoad(self.server.addresses.inference, clients)

    def served(self) -> dict[str, bool]:
        """Which versions the server has, and which is the default."""
        with self.target.manage() as management:
            return {status.version: status.default for status in read_status(management)}

    def differences(self) -> list[str]:
        with self.target.manage() as management:
            return find_mismatches(read_status(management), self.server.model_store)

    def pids(self, version: str) -> set[int | None]:
        with self.target.manage() as management:
            return {worker.pid for worker in management.describe(version).workers}

    def store(self) -> list[str]:
        return sorted(path.name for path in self.server.model_store.iterdir())

    def cifar(self, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        where = ["--config", self.server.config, "--model-store", self.server.model_store]
        where += ["--run-dir", self.server.run_dir]
        call = [BIN / "cifar", command, *arguments, *where]
        return subprocess.run([str(part) for part in call], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    return {
        f"{seed}.0": tiny_archive(
            folder / str(seed), f"{seed}.0", seed, copy_handler(folder / f"handler{seed}", workers)
        )
        for seed, workers in ((1, 2), (2, 1), (3, 1))
    }


def start_site(folder: Path, archives: dict[str, Path]) -> Site:
    store = folder / "model_store"
    store.mkdir()
    shutil.copy(archives["1.0"], store)
    server = TorchServe(folder / "run", write_config(folder), store)
    server.start()
    return Site(server, archives)


@pytest.fixture(scope="module")
def lasting_site(archives, tmp_path_factory) -> Iterator[Site]:
    site = start_site(tmp_path_factory.mktemp("site"), archives)
    yield site
    site.server.stop()


@pytest.fixture
def site(lasting_site) -> Iterator[Site]:
    """The server as it was at its start: 1.0 only, and nothing remembered."""
    yield lasting_site
    store = lasting_site.server.model_store
    if lasting_site.server.process is None:
        forget_desired_state(store)
        TorchServe(lasting_site.server.run_dir, lasting_site.server.config, store, ["cifar=cifar-1.0.mar"]).start()
    with lasting_site.target.manage() as management:
        management.set_default("1.0")
        for version in [served.version for served in management.describe_all() if served.version != "1.0"]:
            management.unregister(version)
        if management.describe("1.0").min_workers != 2:
            management.scale("1.0", 2)
    for name in lasting_site.store():
        if name != "cifar-1.0.mar":
            (store / name).unlink()


def test_versions_come_and_go_without_a_lost_request_or_a_stale_answer(site):
    with site.load() as load:
        done = site.cifar("deploy", site.archives["2.0"], "--watch-s", 0.5)
        deployed = time.monotonic()
        assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(0.5)
        back_begins = time.monotonic()
        done = site.cifar("rollback")
        back = time.monotonic()
        assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(0.5)
        assert site.served() == {"1.0": True, "2.0": False}
        assert site.deploy("2.0").now.version == "2.0"  # it is still registered
        assert site.rollback().now.version == "1.0"
        site.undeploy("2.0")
    assert load.failures == []
    assert len(load.asked) > 200
    assert load.versions(deployed, back_begins) == {"2.0"}
    assert {asked.version for asked in load.asked if back < asked.sent < back + 0.4} == {"1.0"}
    assert site.served() == {"1.0": True}
    assert site.differences() == []
    assert site.store() == [
        "cifar-1.0.mar",
        "cifar-2.0.mar",
        "cifar-2.0.mar.sha256",
        "deployed.json",
        "serving.json",
    ]


def test_each_step_is_a_line_with_its_time_and_status_tells_what_is_served(site):
    lines = site.cifar("deploy", site.archives["2.0"], "--watch-s", 0).stdout.splitlines()
    assert [line.split("done")[1].split(":")[0].strip() for line in lines[:-1]] == [
        "check the archive",
        "put it into the model store",
        "register it, and wait for its workers",
        "compare its answers with those recorded at export",
        "make it the default",
        "watch its first requests",
        "wait for the last answers of 1.0",
    ]
    assert all(float(line.split(" s ")[0]) >= 0 for line in lines[:-1])
    command = [str(BIN / "cifar"), "status", "--json", "--management-url", site.target.management_url]
    done = subprocess.run([*command, "--model-store", str(site.target.store)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    told = json.loads(done.stdout)
    assert [(version["version"], version["default"]) for version in told["versions"]] == [("1.0", False), ("2.0", True)]
    with site.target.manage() as management:
        management.set_default("1.0")
    done = subprocess.run([*command, "--model-store", str(site.target.store)], capture_output=True, text=True)
    assert (done.returncode, json.loads(done.stdout)["differences"]) == (
        1,
        ["The default is 1.0, and should be 2.0. `cifar up` makes it so."],
    )
    site.server.start()
    assert site.served() == {"1.0": False, "2.0": True}


def test_only_so_many_versions_are_kept_and_a_rollback_brings_back_what_was_not(site):
    with site.load(2) as load:
        site.deploy("2.0", DeployOptions(keep=1, watch_s=0, drain_grace_s=0.2))
        assert site.served() == {"2.0": True}
        assert site.rollback().now.version == "1.0"
    assert load.failures == []
    assert site.served() == {"1.0": True, "2.0": False}
    with pytest.raises(NothingToRollBackTo):
        site.rollback()
    assert site.differences() == []


def test_another_version_may_be_given_to_an_archive(site):
    done = site.cifar("deploy", site.archives["2.0"], "--version", "2.0-eu.1", "--watch-s", 0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.served() == {"1.0": False, "2.0-eu.1": True}
    with site.target.infer() as inference:
        assert inference.predict(bytes_image()).model_version == "2.0-eu.1"


def bytes_image():
    import numpy as np

    return np.zeros((32, 32, 3), np.uint8)


def test_a_version_is_never_replaced_by_other_content(site, tmp_path):
    handler = copy_handler(tmp_path / "handler")
    other = tiny_archive(tmp_path / "other", "1.0", 9, handler)
    with pytest.raises(VersionTaken, match=r"Version 1\.0 is served from cifar-1\.0\.mar with other content"):
        deploy(other, site.target, Steps(), QUICK)
    (site.target.store / "cifar-2.0.mar").write_bytes(b"of somebody")
    with pytest.raises(VersionTaken, match=r"cifar-2\.0\.mar has other content"):
        site.deploy("2.0")
    assert (site.target.store / "cifar-2.0.mar").read_bytes() == b"of somebody"
    assert site.served() == {"1.0": True}
    assert read_desired_state(site.target.store) is None


def test_the_default_does_not_go_and_what_is_not_there_is_named(site):
    with pytest.raises(VersionIsDefault, match=r"cifar rollback"):
        site.undeploy("1.0")
    with pytest.raises(ModelNotFound, match=r"Version 7 is not served; 1\.0 is"):
        site.undeploy("7")
    with pytest.raises(ModelNotFound, match="Version 7 is not served"):
        scale("7", 1, site.target, Steps(), QUICK)
    assert site.served() == {"1.0": True}


def break_on_load(handler: Path) -> None:
    (handler / "pixels.py").write_text("raise RuntimeError('no pixels today')\n")


def answer_otherwise(handler: Path) -> None:
    """Swap red and blue: the network is right, and the service is wrong."""
    file = handler / "cifar_handler.py"
    text = file.read_text()
    assert "torch.from_numpy(images).to(self.device)" in text
    file.write_text(text.replace("torch.from_numpy(images)", "torch.from_numpy(images[..., ::-1].copy())"))


def fail_later(handler: Path) -> None:
    """Die some time after it has become the default: the first requests are fine."""
    file = handler / "cifar_handler.py"
    text = file.read_text()
    begin = "        outcomes = [self._decode(row, context, index)"
    assert begin in text
    dying = (
        "        self.asked = getattr(self, 'asked', 0) + 1\n"
        "        if self.asked > 25:\n"
        "            __import__('os')._exit(1)\n"
    )
    file.write_text(text.replace(begin, dying + begin))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_on_load, r"does not start: a worker died 2 times while it loaded the model(?s:.*)no pixels today"),
        (answer_otherwise, r"answers otherwise than when it was exported: image \d+ of 32 gets"),
        (fail_later, r"lost a worker|failed on 3 of \d+ known pictures"),
    ],
)
def test_a_version_that_fails_on_the_server_is_taken_back(site, tmp_path, damage, told):
    handler = copy_handler(tmp_path / "handler")
    damage(handler)
    broken = tiny_archive(tmp_path / "broken", "4.0", 4, handler)
    before = site.pids("1.0")
    with site.load(2) as load:
        with pytest.raises(DeploymentFailed, match=told):
            deploy(broken, site.target, Steps(), DeployOptions(watch_s=20, drain_grace_s=0.2, timeout_s=60))
        time.sleep(0.3)
    assert site.served() == {"1.0": True}
    assert site.pids("1.0") == before
    assert site.store() == ["cifar-1.0.mar"]
    assert load.asked[-1].version == "1.0"
    if damage is not fail_later:  # that one has killed the workers with its clients' requests in them
        assert load.failures == []
        assert load.versions() == {"1.0"}


def test_an_archive_that_is_rejected_never_reaches_the_server(site, tmp_path):
    truncated = tmp_path / "cifar-4.0.mar"
    truncated.write_bytes(site.archives["2.0"].read_bytes()[:-100])
    log = site.target.server_log
    assert log is not None
    size = log.stat().st_size
    done = site.cifar("deploy", truncated)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert str(truncated) in done.stderr
    assert "truncated" in done.stderr
    assert site.store() == ["cifar-1.0.mar"]
    assert log.read_bytes()[size:].count(b"POST /models") == 0


def test_a_full_disk_leaves_the_old_version_and_nothing_of_the_new(site):
    """A limit on the size of files stands in for the disk: writing fails in the same place."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    where = ["--config", site.server.config, "--model-store", site.target.store, "--run-dir", site.server.run_dir]
    command = [BIN / "cifar", "deploy", site.archives["2.0"], *where]
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, timeout=60
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "cifar-2.0.mar" in done.stderr and "File too large" in done.stderr
    assert site.served() == {"1.0": True}
    assert site.store() == ["cifar-1.0.mar"]


STEPS = [
    "check the archive",
    "put it into the model store",
    "register it",
    "compare its answers",
    "make it the default",
    "watch its first requests",
    "wait for the last answers",
]


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_it_is_finished_by_the_same_command(site, step):
    code = (
        "import sys; from pathlib import Path\n"
        "from cifar.cli.deployment import find_target\n"
        "from cifar.deployment.deploy import DeployOptions, deploy; from cifar.deployment.steps import Steps\n"
        "archive, *where = map(Path, sys.argv[1:])\n"
        "deploy(archive, find_target(*where), Steps(), DeployOptions(watch_s=0.3, drain_grace_s=0.3))"
    )
    where = [site.server.config, site.target.store, site.server.run_dir]
    command = [sys.executable, "-u", "-c", code, site.archives["2.0"], *where]
    with site.load(2) as load:
        with subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if step in line:
                    process.kill()
        served, differences = site.served(), site.differences()
        assert served["1.0"] or served["2.0"]
        if step == STEPS[0] or (
            step == STEPS[-1] and not differences
        ):  # nothing had begun; it was done before the kill
            assert differences == []
        else:
            assert "The deployment of version 2.0 was interrupted" in differences[0]
        assert site.deploy("2.0").now.version == "2.0"
        assert site.differences() == []
        assert site.served() == {"1.0": False, "2.0": True}
        assert site.rollback().now.version == "1.0"
    assert load.failures == []


def test_with_a_key_set_only_what_is_signed_is_deployed(site, tmp_path, monkeypatch):
    private, public = write_pair(tmp_path / "keys")
    archive = Path(shutil.copy(site.archives["2.0"], tmp_path))
    monkeypatch.setenv("CIFAR_VERIFY_KEY", str(public))
    done = site.cifar("deploy", archive)
    assert (done.returncode, "is not signed" in done.stderr) == (1, True)
    assert site.store() == ["cifar-1.0.mar"]
    sign_archive(archive, private)
    content = archive.read_bytes()
    archive.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    done = site.cifar("deploy", archive)
    assert (done.returncode, "is not the archive that was signed" in done.stderr) == (1, True)
    assert site.store() == ["cifar-1.0.mar"]
    archive.write_bytes(content)
    done = site.cifar("deploy", archive, "--watch-s", 0)
    assert done.returncode == 0, done.stderr
    assert "signature verified" in done.stdout


def test_what_was_checked_is_what_runs_when_a_deployment_is_resumed(site, monkeypatch):
    """Killed before the switch; then other content comes to lie in its place in the model store."""

    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> int:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("cifar.deployment.deploy.check_parity", kill)
        patch.setattr("cifar.deployment.deploy.Rollout._undo", lambda *arguments, **options: None)
        with pytest.raises(Killed):
            site.deploy("2.0")
    before = site.pids("2.0")
    stored = site.target.store / "cifar-2.0.mar"
    stored.write_bytes(site.archives["3.0"].read_bytes())
    assert site.deploy("2.0").now.version == "2.0"
    assert stored.read_bytes() == site.archives["2.0"].read_bytes()
    assert not before & site.pids("2.0")  # whatever it was registered from, it is registered again


def test_an_archive_that_is_changed_while_it_is_registered_is_taken_back(site, monkeypatch):
    from cifar.deployment.versions import wait_until_ready

    def swap(*arguments: object) -> object:
        (site.target.store / "cifar-2.0.mar").write_bytes(site.archives["3.0"].read_bytes())
        return wait_until_ready(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("cifar.deployment.deploy.wait_until_ready", swap)
    with pytest.raises(DeploymentFailed, match=r"cifar-2\.0\.mar was changed while it was registered"):
        site.deploy("2.0")
    assert site.served() == {"1.0": True}
    # What was put there by another hand stays, with the digest that it does not have: no command takes it for checked.
    assert site.store() == ["cifar-1.0.mar", "cifar-2.0.mar", "cifar-2.0.mar.sha256"]


def test_a_rollback_looks_whether_the_archive_is_the_one_that_was_deployed(site):
    stored = site.target.store / "cifar-1.0.mar"
    content = stored.read_bytes()
    site.deploy("2.0")
    try:
        stored.write_bytes(site.archives["3.0"].read_bytes())
        with pytest.raises(ArchiveRejected, match=r"cifar-1\.0\.mar is not what was served as version 1\.0"):
            site.rollback()
        assert site.served() == {"1.0": False, "2.0": True}
    finally:
        stored.write_bytes(content)
    assert site.rollback().now.version == "1.0"


def test_workers_that_were_scaled_by_hand_are_told_of(site):
    def scale_by_hand(query: str, version: str = "1.0") -> None:
        with site.target.manage() as management:
            assert management.send("PUT", f"/models/cifar/{version}?{query}").ok

    assert site.differences() == []
    scale_by_hand("min_worker=1&max_worker=1&synchronous=true")
    mend = "`cifar scale 1.0 2` makes it so."
    assert site.differences() == [f"Version 1.0 has 1 workers, and should have 2. {mend}"]
    scale_by_hand("min_worker=2&max_worker=3&synchronous=true")
    assert site.differences() == [f"Version 1.0 has 2 to 3 workers, and should have 2. {mend}"]
    scale_by_hand("min_worker=2&max_worker=2&synchronous=true")
    site.deploy("2.0")
    assert site.differences() == []
    scale_by_hand("min_worker=2&synchronous=true", "2.0")
    mend = "`cifar scale 2.0 1` makes it so."
    assert site.differences() == [f"Version 2.0 has 2 workers, and should have 1. {mend}"]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_after_the_switch_it_takes_everything_back(site, kind):
    where = ["--config", site.server.config, "--model-store", site.target.store, "--run-dir", site.server.run_dir]
    command = [BIN / "cifar", "deploy", site.archives["2.0"], "--watch-s", 60, *where]
    with site.load(2) as load:
        with subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
        ) as process:
            assert process.stdout is not None
            switched = 0
            for line in process.stdout:
                switched += "make it the default" in line
                if switched == 1:  # an interrupted print may come twice; a second signal would stop what takes it back
                    process.send_signal(kind)
                    switched = 2
        assert process.returncode != 0
        assert site.served() == {"1.0": True}
    assert load.failures == []
    assert site.store() == ["cifar-1.0.mar"]
    assert site.differences() == []


def test_an_interrupted_deployment_is_undone_by_another_and_by_a_rollback(site, monkeypatch):
    class Killed(BaseException):
        pass

    def interrupted(version: str) -> None:
        """Leave a deployment as a SIGKILL in its watch leaves it: the undoing does not happen either."""
        with monkeypatch.context() as patch:
            patch.setattr("cifar.deployment.deploy.watch", raise_killed)
            patch.setattr("cifar.deployment.deploy.Rollout._undo", lambda *arguments, **options: None)
            with pytest.raises(Killed):
                site.deploy(version)
        assert site.served() == {"1.0": False, version: True}

    def raise_killed(*arguments: object) -> int:
        raise Killed

    interrupted("2.0")
    assert site.rollback().now.version == "1.0"
    assert (site.served(), site.differences()) == ({"1.0": True}, [])
    assert site.store() == ["cifar-1.0.mar", "deployed.json", "serving.json"]
    interrupted("2.0")
    assert site.deploy("3.0").now.version == "3.0"
    assert (site.served(), site.differences()) == ({"1.0": False, "3.0": True}, [])
    assert "cifar-2.0.mar" not in site.store()
    site.rollback()
    site.undeploy("3.0")
    interrupted("2.0")
    site.undeploy("2.0")
    assert (site.served(), site.differences()) == ({"1.0": True}, [])


def test_what_was_deployed_survives_the_end_of_the_java_process(site):
    site.deploy("2.0")
    scale("2.0", 2, site.target, Steps(), QUICK)
    java = site.server.process
    assert java is not None
    java.kill()
    java.wait(10)
    with pytest.raises(ServerUnreachable):
        site.served()
    with pytest.raises(ServerUnreachable):
        site.deploy("3.0")
    site.server.start()
    assert site.served() == {"1.0": False, "2.0": True}
    assert (len(site.pids("1.0")), len(site.pids("2.0"))) == (2, 2)
    assert site.differences() == []
    assert site.rollback().now.version == "1.0"
    site.server.stop()
    site.server.start()
    assert site.served() == {"1.0": True, "2.0": False}


def test_with_a_full_disk_nothing_is_changed_that_could_not_be_remembered(site, monkeypatch):
    site.deploy("2.0")
    served, before = site.served(), read_desired_state(site.target.store)

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for act in (lambda: scale("1.0", 1, site.target, Steps(), QUICK), site.rollback, lambda: site.undeploy("1.0")):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr("cifar.common.files.os.fsync", fail)
            act()
        assert (site.served(), len(site.pids("1.0"))) == (served, 2)
        assert read_desired_state(site.target.store) == before
    assert site.differences() == []


def test_the_end_of_the_java_process_in_a_deployment_leaves_the_old_version(site, monkeypatch):
    def kill_java(*arguments: object) -> int:
        java = site.server.process
        assert java is not None
        java.kill()
        java.wait(10)
        raise ServerUnreachable("there", "it was killed")

    with monkeypatch.context() as patch:
        patch.setattr("cifar.deployment.deploy.check_parity", kill_java)
        with pytest.raises(CifarError):
            site.deploy("2.0")
    site.server.start()
    assert site.served() == {"1.0": True}
    assert "The deployment of version 2.0 was interrupted" in site.differences()[0]
    assert site.deploy("2.0").now.version == "2.0"
    assert site.differences() == []


def test_a_killed_worker_comes_back_and_status_tells_both(site):
    [first, _second] = site.pids("1.0")
    assert first is not None
    psutil.Process(first).kill()
    ready: list[int] = []
    deadline = time.monotonic() + 60
    while 1 not in ready or ready[-1] < 2:
        with site.target.manage() as management:
            ready.append(read_status(management)[0].ready_workers)
        assert time.monotonic() < deadline, ready
        time.sleep(0.05)
    assert first not in site.pids("1.0")


def test_at_start_a_deployed_archive_that_is_missing_or_changed_is_named(site):
    site.deploy("2.0")
    archive = site.target.store / "cifar-2.0.mar"
    content = archive.read_bytes()
    for damaged, told in (
        (None, "is missing"),
        (content[:-100], "truncated"),
        (content[:-1] + b"x", "cifar-2.0.mar"),
    ):
        archive.unlink(missing_ok=True)
        if damaged is not None:
            archive.write_bytes(damaged)
        with pytest.raises(ArchiveUnusable, match=told):
            site.server.start()
        assert any("cifar-2.0.mar" in difference for difference in site.differences())
    archive.write_bytes(content)
    other = TorchServe(site.server.run_dir, site.server.config, site.target.store, ["cifar=cifar-1.0.mar"])
    with pytest.raises(ConfigUnusable, match="with what was deployed"):
        other.start()
    assert site.server.start()


def test_nobody_else_changes_the_store_meanwhile(site):
    with site.target.exclusive():
        done = site.cifar("deploy", site.archives["2.0"])
        assert (done.returncode, "Another process is changing what is served" in done.stderr) == (1, True)
    assert site.store() == ["cifar-1.0.mar"]


@pytest.fixture
def management(site) -> Iterator[ManagementClient]:
    with site.target.manage() as client:
        yield client


def test_a_version_that_somebody_registered_by_hand_is_told_and_goes_last(site, management):
    site.deploy("2.0")
    shutil.copy(site.archives["3.0"], site.target.store)
    management.register("cifar-3.0.mar")
    assert site.differences() == [
        "Version 3.0 is served from 'cifar-3.0.mar', and was not deployed. `cifar undeploy 3.0` takes it away."
    ]
    site.undeploy("3.0")
    assert site.differences() == []
