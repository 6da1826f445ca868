"""Runs in a real store of MLflow: what they record, how they end, and what is said when the store cannot be used."""

import contextlib
import json
import os
import platform
import shutil
import socket
import sqlite3
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from cifar.common.errors import TrackingError
from cifar.common.mlflow_store import first_contact, without_credentials
from training.tracking import RunLog, TrackedRun, describe_environment, has_run, installed_distributions

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


@pytest.fixture
def client(store):
    import mlflow

    return mlflow.MlflowClient()


@pytest.fixture
def use_store(monkeypatch):
    """Track in another store than the session's."""
    import mlflow

    def use(uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)

    return use


@pytest.fixture
def refusing_port():
    """A port that is taken, and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def text_of(client, run_id, name):
    return Path(client.download_artifacts(run_id, name)).read_text()


def test_a_new_run_records_the_environment_it_runs_in(client):
    with TrackedRun(name="a name") as run:
        pass
    recorded = client.get_run(run.id)
    assert recorded.info.run_name == "a name"
    assert recorded.data.tags["python"] == platform.python_version()
    assert recorded.data.tags["torch"] == torch.__version__
    assert recorded.data.tags["cpu_count"] == str(os.cpu_count())
    assert ("cuda_device" in recorded.data.tags) == torch.cuda.is_available()
    assert all(recorded.data.tags[key] == value and value for key, value in describe_environment().items())
    lines = text_of(client, run.id, "environment.txt").splitlines()
    assert lines == installed_distributions()
    assert {f"mlflow=={version('mlflow')}", f"pytest=={version('pytest')}"} <= set(lines)
    assert lines == sorted(set(lines), key=str.lower)


def test_a_run_that_is_gone_on_with_keeps_the_environment_it_began_in(client):
    with TrackedRun() as run:
        run.set_tags({"torch": "1.0"})
        run.log_text("torch==1.0\n", "environment.txt")
    with TrackedRun(run.id) as resumed:
        assert resumed.id == run.id
    assert client.get_run(run.id).data.tags["torch"] == "1.0"
    assert text_of(client, run.id, "environment.txt") == "torch==1.0\n"


def test_everything_recorded_is_in_the_store(client, tmp_path):
    (tmp_path / "plots").mkdir()
    for name in ("a.txt", "plots/b.txt", "plots/c.txt"):
        (tmp_path / name).write_text(name)
    with TrackedRun() as run:
        run.log_params({"train.epochs": 2, "model.name": "SimpleCNN"})
        run.set_tags({"git_commit": "abc"})
        run.log_metrics({"loss": 0.5}, 1)
        run.log_metrics({"loss": 0.25}, 2)
        run.log_metrics({"test_loss": 0.3})
        run.log_file(tmp_path / "a.txt")
        run.log_file(tmp_path / "plots", "plots")
    data = client.get_run(run.id).data
    assert data.params == {"train.epochs": "2", "model.name": "SimpleCNN"}
    assert data.tags["git_commit"] == "abc"
    assert data.metrics == {"loss": 0.25, "test_loss": 0.3}
    assert [(point.step, point.value) for point in client.get_metric_history(run.id, "loss")] == [(1, 0.5), (2, 0.25)]
    assert [file.path for file in client.list_artifacts(run.id)] == ["a.txt", "environment.txt", "plots"]
    assert [file.path for file in client.list_artifacts(run.id, "plots")] == ["plots/b.txt", "plots/c.txt"]


def test_the_data_set_is_listed_by_its_digest_and_not_copied(client, tmp_path):
    digest = "0123456789abcdef" * 4
    with TrackedRun() as run:
        run.log_dataset(digest, Path("data/cifar10.npz"))  # no such file here
    (recorded,) = client.get_run(run.id).inputs.dataset_inputs
    assert (recorded.dataset.name, recorded.dataset.digest) == ("cifar10", digest[:36])
    assert json.loads(recorded.dataset.source) == {"uri": "data/cifar10.npz"}
    assert [(tag.key, tag.value) for tag in recorded.tags] == [("mlflow.data.context", "training")]


@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow's own, when it loads what it knows of data
def test_mlflow_itself_resolves_the_source_of_the_data_set(client):
    import mlflow

    with TrackedRun() as run:
        run.log_dataset("d1", Path("data/cifar10.npz"))
    (recorded,) = client.get_run(run.id).inputs.dataset_inputs
    assert mlflow.data.get_source(recorded).to_dict() == {"uri": "data/cifar10.npz"}


def test_trials_are_nested_and_parent_and_trial_record_into_their_own_run(client):
    with TrackedRun() as search:
        for number in (1, 2):
            with TrackedRun(parent_run_id=search.id, name=f"trial {number}") as trial:
                trial.log_metrics({"loss": number})
                search.log_metrics({"best": number}, number)
                search.log_params({f"trials.{number}": trial.id})
    search_data = client.get_run(search.id).data
    assert (search_data.metrics, len(search_data.params)) == ({"best": 2.0}, 2)
    experiment = client.get_run(search.id).info.experiment_id
    trials = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{search.id}'", order_by=["metrics.loss"])
    assert [(run.info.run_name, run.data.metrics, run.info.status) for run in trials] == [
        ("trial 1", {"loss": 1.0}, "FINISHED"),
        ("trial 2", {"loss": 2.0}, "FINISHED"),
    ]
    assert client.get_run(search.id).info.status == "FINISHED"


def test_another_process_can_nest_a_trial_and_resume_with_it(client):
    with TrackedRun() as search:
        pass
    with TrackedRun(parent_run_id=search.id) as trial:  # the search is not MLflow's active run any more
        trial.mark_stopped()
    assert client.get_run(trial.id).info.status == "KILLED"
    with TrackedRun() as other, TrackedRun(trial.id, parent_run_id=other.id) as resumed:
        assert resumed.id == trial.id
    assert client.get_run(trial.id).data.tags["mlflow.parentRunId"] == search.id
    assert client.get_run(trial.id).info.status == "FINISHED"


def test_a_trial_of_a_search_that_is_not_in_the_store_is_rejected(store):
    with pytest.raises(TrackingError, match=r"no run can be started in .*0123456789abcdef"):
        TrackedRun(parent_run_id="0123456789abcdef0123456789abcdef")


def test_the_experiment_is_the_users_or_cifar_and_a_resumed_run_stays_in_its_own(client, tmp_path, monkeypatch):
    def experiment_of(run):
        return client.get_experiment(client.get_run(run.id).info.experiment_id).name

    client.create_experiment("mine", artifact_location=tmp_path.as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with TrackedRun() as mine:
        pass
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with TrackedRun() as other:
        pass
    assert (experiment_of(mine), experiment_of(other)) == ("mine", "cifar")
    with TrackedRun(mine.id):
        assert client.get_run(mine.id).info.status == "RUNNING"
    assert experiment_of(mine) == "mine"


def test_writing_into_a_run_that_has_ended_leaves_its_status_and_its_duration(client):
    with TrackedRun() as run:
        run.mark_stopped()
    before = client.get_run(run.id).info
    time.sleep(0.01)
    log = RunLog(run.id)
    log.log_metrics({"test_accuracy": 0.5})
    log.set_tags({"later": "yes"})
    after = client.get_run(run.id)
    assert (after.info.status, after.info.end_time) == ("KILLED", before.end_time)
    assert (after.data.metrics, after.data.tags["later"]) == ({"test_accuracy": 0.5}, "yes")


def test_a_deleted_run_is_not_in_the_store(client):
    with TrackedRun() as run:
        pass
    assert has_run(run.id)
    assert not has_run("0123456789abcdef0123456789abcdef")
    client.delete_run(run.id)
    assert not has_run(run.id)


def test_a_server_that_does_not_answer_is_reported_within_seconds_and_without_the_password(
    use_store, refusing_port, monkeypatch
):
    use_store(f"http://me:secret@127.0.0.1:{refusing_port}")
    start = time.monotonic()
    with pytest.raises(TrackingError) as rejection:
        TrackedRun()
    assert time.monotonic() - start < 30  # MLflow's own patience: some 4 minutes
    message = str(rejection.value)
    assert f"no run can be started in MLflow's store http://127.0.0.1:{refusing_port}: the server does not" in message
    assert "Connection refused" in message
    assert "MLFLOW_TRACKING_URI" in message
    assert "secret" not in message
    assert RETRIES not in os.environ
    monkeypatch.setenv(RETRIES, "0")
    with pytest.raises(TrackingError, match=r"cannot be looked up in .* does not answer"):
        has_run("0123456789abcdef0123456789abcdef")


def test_the_first_contact_is_short_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv(RETRIES, raising=False)
    monkeypatch.setenv(TIMEOUT, "77")
    with first_contact():
        assert int(os.environ[RETRIES]) < 7
        assert os.environ[TIMEOUT] == "77"
    assert (os.environ.get(RETRIES), os.environ[TIMEOUT]) == (None, "77")


def test_a_store_that_cannot_be_opened_is_rejected_with_the_reason(use_store, tmp_path):
    (tmp_path / "junk.db").write_text("no database")
    use_store(f"sqlite:///{tmp_path / 'junk.db'}")
    with pytest.raises(TrackingError, match=r"store sqlite:.*junk\.db: file is not a database\. MLFLOW_TRACKING_URI"):
        TrackedRun()
    use_store("sqlite:////proc/none/mlflow.db")
    with pytest.raises(TrackingError, match="No such file or directory"):
        TrackedRun()
    use_store("gopher://somewhere")
    with pytest.raises(TrackingError, match="gopher"):
        TrackedRun()


@pytest.fixture
def broken_run(session_store, use_store, tmp_path):
    """A run whose store breaks right after its start: a table is gone, and a file lies where its folder should be."""
    import mlflow

    shutil.copy(session_store, tmp_path / "mlflow.db")
    use_store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = TrackedRun()
    folder = Path(mlflow.get_artifact_uri().removeprefix("file://"))
    shutil.rmtree(folder)
    folder.write_text("")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("alter table runs rename to lost")
        database.commit()
    yield run
    with contextlib.suppress(Exception):
        mlflow.end_run()  # where the test has failed before


def test_a_store_that_breaks_during_the_run_is_reported_at_every_record(broken_run, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for record, reason in (
        (lambda: broken_run.log_params({"a": 1}), "no such table"),
        (lambda: broken_run.set_tags({"a": "1"}), "no such table"),
        (lambda: broken_run.log_metrics({"a": 1}, 1), "no such table"),
        (lambda: broken_run.log_dataset("d1", Path("a.npz")), "no such table"),
        (lambda: broken_run.log_file(tmp_path / "a.txt"), "Not a directory|File exists"),
        (lambda: broken_run.log_text("a", "b.txt"), "Not a directory|File exists"),
    ):
        with pytest.raises(TrackingError, match=f"of the run {broken_run.id} cannot be recorded in .*: .*({reason})"):
            record()
    with pytest.raises(TrackingError, match=r"the end of the run .* cannot be recorded"), broken_run:
        pass


def test_a_broken_store_does_not_hide_the_error_that_ends_the_run(broken_run):
    with pytest.raises(ValueError, match="the real one"), broken_run:
        raise ValueError("the real one")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to http://me:secret@host:5000/api failed", "to http://host:5000/api failed"),
        ("postgresql://me:s@cret@host/db", "postgresql://host/db"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("mail me@host, see https://host/a@b", "mail me@host, see https://host/a@b"),
    ],
)
def test_names_and_passwords_are_removed_from_addresses(text, expected):
    assert without_credentials(text) == expected
