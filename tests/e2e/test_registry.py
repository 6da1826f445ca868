"""MLflow's registry as the deploy button of a real TorchServe: a real store, real versions, an alias that moves."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cifar.cli.deployment import find_target
from cifar.common.errors import ArchiveRejected, RegistryUnusable
from cifar.deployment.deploy import DeployOptions
from cifar.deployment.follow import follow, read_followed
from cifar.deployment.observed_state import read_status
from cifar.deployment.promote import promote, record
from cifar.deployment.rollback import rollback
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target
from cifar.server.desired_state import read_desired_state
from cifar.server.torchserve import TorchServe
from tests.support.service import BIN, write_config
from tests.support.tiny import copy_handler, tiny_archive
from tests.training.made_model import make_model
from training.register import main as register
from training.tracking import TrackedRun

QUICK = DeployOptions(watch_s=0.2, drain_grace_s=0.1)
CHAMPION = "models:/cifar@champion"

# MLflow's own, when it imports its pyfunc flavour and configures its tables for the first time.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[TorchServe]:
    """A server with version 1.0, and a store of MLflow with three versions of `cifar`."""
    import mlflow

    folder = tmp_path_factory.mktemp("registry")
    store = folder / "model_store"
    store.mkdir()
    tiny_archive(folder / "first", "1.0", 1, copy_handler(folder / "handler")).rename(store / "cifar-1.0.mar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        patch.chdir(folder)
        for seed in (1, 2, 3):
            with TrackedRun() as run:
                pass
            (folder / str(seed)).mkdir()
            weights = make_model(folder / str(seed), run.id, seed)
            register(weights, weights.parent / "model.pt")
        server = TorchServe(folder / "run", write_config(folder), store)
        server.start()
        yield server
        server.stop()
        mlflow.set_tracking_uri(before)


def client() -> Any:
    import mlflow

    return mlflow.MlflowClient()


def target(site: TorchServe) -> Target:
    return find_target(site.config, site.model_store, site.run_dir)


def point(version: int) -> None:
    client().set_registered_model_alias("cifar", "champion", version)


def tags(version: int) -> dict[str, str]:
    found = client().get_model_version("cifar", str(version)).tags
    return {key: value for key, value in found.items() if key.startswith("deployment")}


def default(site: TorchServe) -> str:
    with target(site).manage() as management:
        return str(management.describe().version)


def look_once(site: TorchServe) -> None:
    follow(CHAMPION, target(site), Steps(), QUICK, wait=lambda: False)


def test_the_registry_is_the_deploy_button(site):
    point(1)
    change = promote(CHAMPION, target(site), Steps(), QUICK)
    assert (change.now.version, change.now.source) == ("mlflow-1", "models:/cifar/1")
    assert default(site) == "mlflow-1"
    assert (tags(1)["deployment"], tags(1)["deployment_reason"]) == ("deployed", "as version mlflow-1")
    assert tags(1)["deployment_time"].startswith("20")
    with target(site).manage() as management:
        described = management.describe_handler("mlflow-1")
    [trained] = [version for version in client().search_model_versions("name = 'cifar'") if version.version in (1, "1")]
    assert described["mlflow_run"] == trained.run_id
    assert described["weights_digest"] == trained.tags["weights_digest"]

    # The alias moves, and is followed; looked at again, nothing is done.
    point(2)
    look_once(site)
    assert default(site) == "mlflow-2"
    assert (tags(2)["deployment"], tags(1)["deployment"]) == ("deployed", "replaced")
    before = read_desired_state(site.model_store)
    look_once(site)
    assert read_desired_state(site.model_store) == before

    # Rolled back by hand: that is written down, and following does not undo it.
    record(rollback(target(site), Steps(), QUICK), Steps(), back=True)
    assert default(site) == "mlflow-1"
    assert (tags(2)["deployment"], tags(1)["deployment"]) == ("rolled back", "deployed")
    assert tags(2)["deployment_reason"] == "version mlflow-1 is the default"
    look_once(site)
    assert default(site) == "mlflow-1"


def test_a_changed_file_is_rejected_with_the_reason_and_not_tried_again(site, capsys):
    before = default(site)
    source = Path(client().get_model_version("cifar", "3").source.removeprefix("models:/"))
    assert source.name  # MLflow names the logged model
    [file] = [path for path in site.model_store.parent.glob("**/artifacts/model.pt") if is_of(path, 3)]
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + b"x")
        with pytest.raises(
            ArchiveRejected, match=r"TorchScript file of models:/cifar/3 has the SHA-256 .*, registered was"
        ):
            promote("models:/cifar/3", target(site), Steps(), QUICK)
        assert tags(3)["deployment"] == "rejected"
        assert "it has been changed in MLflow's store" in tags(3)["deployment_reason"]
        point(3)
        look_once(site)
        look_once(site)
        assert capsys.readouterr().out.count("is rejected until the alias moves") == 1
        followed = read_followed(site.model_store, CHAMPION)
        assert followed is not None
        assert (followed.version, followed.outcome) == ("3", "rejected")
    finally:
        file.write_bytes(content)
    assert default(site) == before
    with target(site).manage() as management:
        assert "mlflow-3" not in [version.version for version in read_status(management)]


def is_of(path: Path, version: int) -> bool:
    """Tell whether a file in MLflow's store is the TorchScript file of a version."""
    from cifar.common.files import digest_file

    return bool(digest_file(path) == client().get_model_version("cifar", str(version)).tags["model_digest"])


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("models:/cifar@missing", "alias missing not found|missing"),
        ("models:/cifar/99", "99"),
        ("models:/mnist/1", "mnist"),
        ("models:/cifar", r"'models:/cifar' names no model; expected models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_what_the_registry_does_not_have_is_named(site, uri, told):
    with pytest.raises(RegistryUnusable, match=told):
        promote(uri, target(site), Steps(), QUICK)


def test_a_version_that_leads_elsewhere_is_rejected_before_anything_is_packed(site):
    with pytest.raises(ArchiveRejected, match=r"'\.\./1' is no version; expected up to 50 letters"):
        promote("models:/cifar/1", target(site), Steps(), QUICK, "../1")


def test_follow_catches_up_after_it_was_stopped_and_ends_by_sigterm(site):
    where = ["--config", site.config, "--model-store", site.model_store, "--run-dir", site.run_dir]
    command = [BIN / "cifar", "follow", CHAMPION, "--every-s", 1, "--watch-s", 0, *where]
    point(2)  # while nobody follows
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    ) as process:
        try:
            wait_for_default(site, "mlflow-2", process)
            point(1)
            wait_for_default(site, "mlflow-1", process)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.wait(60) == 0, output
    assert "Traceback" not in output
    followed = read_followed(site.model_store, CHAMPION)
    assert followed is not None
    assert (followed.version, followed.outcome) == ("1", "deployed")


def wait_for_default(site: TorchServe, version: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while default(site) != version:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.2)
