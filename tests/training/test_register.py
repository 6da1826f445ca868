"""Registration, in real stores of MLflow: what a version holds, that it loads anywhere, and what is rejected."""

import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from cifar.archives.reference_outputs import synthetic_images
from cifar.common.files import digest_file
from tests.training.made_model import PARAMS, make_model, write
from training.errors import RegistrationRejected
from training.model import build_classifier
from training.register import main
from training.tracking import TrackedRun
from training.weights import save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
MLFLOW = str(Path(sys.executable).with_name("mlflow"))
# MLflow's own, when it imports its pyfunc flavour for the first time.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")


@pytest.fixture
def client(store):
    """A store with no version of the model in it."""
    import mlflow

    client = mlflow.MlflowClient()
    if client.search_registered_models("name = 'cifar'"):
        client.delete_registered_model("cifar")
    return client


@pytest.fixture
def trained(client, tmp_path):
    """A model in a folder, and the run that trained it; that was stopped before its end."""
    with TrackedRun() as run:
        run.log_params({"model.name": "SimpleCNN"})
        run.log_metrics({"train_loss": 0.5}, 1)
        run.mark_stopped()
    (tmp_path / "artifacts").mkdir()
    return make_model(tmp_path / "artifacts", run.id), run.id


def register_folder(weights):
    main(weights, weights.parent / "model.pt")
    return orjson.loads((weights.parent / "registered.json").read_bytes())


def versions(client):
    return client.search_model_versions("name = 'cifar'")


def runs(client):
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_a_version_has_the_file_its_metrics_and_the_run_that_trained_it(client, trained, capsys):
    weights, run_id = trained
    before = client.get_run(run_id).info
    count = len(runs(client))
    registered = register_folder(weights)
    digest = digest_file(weights.parent / "model.pt")
    assert registered == {
        "name": "cifar",
        "version": 1,
        "model_uri": "models:/cifar/1",
        "model_digest": digest,
        "run_id": run_id,
        "tracking_uri": os.environ["MLFLOW_TRACKING_URI"],
    }
    assert f"cifar version 1: run {run_id}, models:/cifar/1\n" in capsys.readouterr().out

    (version,) = versions(client)
    assert (version.run_id, version.status) == (run_id, "READY")
    assert version.tags == {
        "accuracy": "0.75",
        "accuracy_low": "0.5",
        "accuracy_high": "0.875",
        "loss": "0.625",
        "weights_digest": digest_file(weights),
        "model_digest": digest,
        "git_commit": "abc",
        "data_digest": "d1",
        "archive_version": "1.10",
    }
    run = client.get_run(run_id)
    metrics = {"test_accuracy": 0.75, "test_accuracy_low": 0.5, "test_accuracy_high": 0.875, "test_loss": 0.625}
    assert run.data.metrics == metrics | {"test_images": 20, "train_loss": 0.5}
    assert {file.path for file in client.list_artifacts(run_id)} == {"environment.txt", "evaluation.json", "plots"}
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/confusion.png"]
    # The run is as its training left it, and there is no other.
    assert (run.info.status, run.info.end_time) == ("KILLED", before.end_time)
    assert len(runs(client)) == count


def test_the_registry_has_the_exported_file_byte_for_byte(client, trained, tmp_path):
    import mlflow

    weights, _ = trained
    registered = register_folder(weights)
    folder = Path(mlflow.artifacts.download_artifacts(registered["model_uri"], dst_path=str(tmp_path / "copy")))
    assert (folder / "artifacts" / "model.pt").read_bytes() == (weights.parent / "model.pt").read_bytes()
    assert not list(folder.rglob("*.pkl"))


def test_the_version_says_what_it_takes_what_it_gives_and_what_it_needs(client, trained):
    import mlflow

    register_folder(trained[0])
    info = mlflow.models.get_model_info("models:/cifar/1")
    images, probabilities = info.signature.inputs.inputs[0], info.signature.outputs.inputs[0]
    assert (images.type.name, images.shape) == ("uint8", (-1, 32, 32, 3))
    assert (probabilities.type.name, probabilities.shape) == ("float32", (-1, 10))
    metadata = info.metadata or {}
    assert (metadata["version"], len(metadata["class_names"])) == ("1.10", 10)
    model = mlflow.pyfunc.load_model("models:/cifar/1")
    assert np.array_equal(model.input_example, synthetic_images(2))
    # The metrics stand with the model, too, not only with its run.
    logged = mlflow.get_logged_model(info.model_id)
    assert {metric.key for metric in logged.metrics or []} >= {"test_accuracy", "test_loss"}
    assert logged.source_run_id == trained[1]

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = project["dependencies"] + project["optional-dependencies"]["training"]
    needed = Path(mlflow.pyfunc.get_model_dependencies("models:/cifar/1")).read_text().splitlines()
    assert [pin.partition("==")[0] for pin in needed] == ["torch", "numpy", "mlflow"]
    assert set(needed) <= set(pins)


def test_it_answers_as_the_file_does_for_any_number_of_images_and_rejects_others(client, trained):
    import mlflow

    weights, _ = trained
    register_folder(weights)
    model = mlflow.pyfunc.load_model("models:/cifar/1")
    images = synthetic_images(1500)
    with torch.inference_mode():
        expected = torch.jit.load(weights.parent / "model.pt")(torch.from_numpy(images)).numpy()
    for count in (1, 1500):
        answer = model.predict(images[:count])
        assert (answer.dtype, answer.shape) == (np.float32, (count, 10))
        np.testing.assert_allclose(answer, expected[:count], rtol=0, atol=1e-6)
    assert model.predict(np.flip(images[:2], axis=2)).shape == (2, 10)  # not contiguous
    for bad in (images[:1].astype(np.float32), images[0], images[:1, :16]):
        with pytest.raises(mlflow.MlflowException, match="schema"):
            model.predict(bad)


def test_the_command_of_mlflow_predicts_where_there_is_no_project(client, trained, tmp_path):
    weights, _ = trained
    register_folder(weights)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "training").mkdir(parents=True)
    (elsewhere / "training" / "__init__.py").write_text("raise ImportError('the project is not here')")
    images = synthetic_images(3)
    write(elsewhere / "images.json", {"inputs": images.tolist()})
    command = [MLFLOW, "models", "predict", "--model-uri", "models:/cifar/1", "--env-manager", "local"]
    done = subprocess.run(
        [*command, "--input-path", "images.json", "--content-type", "json", "--output-path", "answer.json"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(elsewhere)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer = orjson.loads((elsewhere / "answer.json").read_bytes())["predictions"]
    with torch.inference_mode():
        expected = torch.jit.load(weights.parent / "model.pt")(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


def test_the_same_file_is_not_registered_again_but_its_metrics_are_kept_up_to_date(client, trained, capsys):
    weights, run_id = trained
    first = register_folder(weights)
    evaluation = weights.parent / "evaluation.json"
    write(evaluation, orjson.loads(evaluation.read_bytes()) | {"corrupted_accuracy": 0.25, "loss": 0.5})
    (weights.parent / "registered.json").unlink()
    assert register_folder(weights) == first
    assert "cifar version 1 is" in capsys.readouterr().out
    (version,) = versions(client)
    assert (version.tags["corrupted_accuracy"], version.tags["loss"]) == ("0.25", "0.5")
    assert client.get_run(run_id).data.metrics["test_corrupted_accuracy"] == 0.25
    models = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert [model.source_run_id for model in models].count(run_id) == 1


def test_another_file_becomes_the_next_version(client, trained):
    weights, run_id = trained
    register_folder(weights)
    make_model(weights.parent, run_id, version="2.0")  # the same weights for another archive
    assert register_folder(weights)["version"] == 2
    make_model(weights.parent, run_id, seed=1)
    assert register_folder(weights)["version"] == 3
    tags = {version.version: version.tags for version in versions(client)}
    assert [tags[number]["archive_version"] for number in (1, 2, 3)] == ["1.10", "2.0", "1.10"]
    assert tags[1]["weights_digest"] == tags[2]["weights_digest"] != tags[3]["weights_digest"]


def test_weights_that_were_trained_into_another_store_get_a_run_that_says_so(client, tmp_path):
    elsewhere = "0123456789abcdef0123456789abcdef"
    weights = make_model(tmp_path, elsewhere)
    registered = register_folder(weights)
    run = client.get_run(registered["run_id"])
    assert run.info.run_id != elsewhere
    assert run.info.status == "FINISHED"
    assert {"trained_in_run": elsewhere, "git_commit": "abc", "data_digest": "d1"}.items() <= run.data.tags.items()
    assert run.data.metrics["test_accuracy"] == 0.75
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"training.json", "evaluation.json"}
    assert versions(client)[0].run_id == run.info.run_id
    count = len(runs(client))
    assert register_folder(weights) == registered
    assert len(runs(client)) == count


def test_a_run_of_another_experiment_keeps_its_model_there(client, tmp_path, monkeypatch):
    experiment = client.create_experiment("theirs", artifact_location=tmp_path.as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    with TrackedRun() as run:
        pass
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with TrackedRun():
        pass  # makes another experiment MLflow's active one
    register_folder(make_model(tmp_path, run.id))
    assert [model.source_run_id for model in client.search_logged_models([experiment])] == [run.id]


def lose(name):
    return lambda folder: (folder / name).unlink()


def change(name, **values):
    def apply(folder):
        write(folder / name, orjson.loads((folder / name).read_bytes()) | values)

    return apply


def retrain(folder):
    save_weights(build_classifier(PARAMS).network.state_dict(), folder / "best.pth")


def spoil(folder):
    whole = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(whole[: len(whole) // 2])


def script_something_else(folder):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(folder / "model.pt"))


REFUSALS = {
    "no weights": (lose("best.pth"), r"best\.pth is missing; make it: make train"),
    "no model": (lose("model.pt"), r"model\.pt is missing; make it: python -m training\.export --weights \S+best\.pth"),
    "no record": (lose("training.json"), r"training\.json is missing"),
    "no metrics": (lose("evaluation.json"), r"evaluation\.json is missing; make it: python -m training\.evaluate"),
    "other weights": (retrain, r"model\.pt is of weights \w{12}…, \S+best\.pth is \w{12}…; make it again: .*export"),
    "other metrics": (change("evaluation.json", weights_digest="f" * 64), r"evaluation\.json is of weights f{12}…"),
    "other record": (change("training.json", mlflow_run="other"), r"mlflow_run run1, \S+training\.json says other"),
    "other data": (change("training.json", data_digest="d2"), r"data_digest d1, \S+training\.json says d2"),
    "half a model": (spoil, r"model\.pt is no file of this project's export, or a truncated one"),
    "another's model": (script_something_else, r"model\.pt is no file of this project's export"),
}


@pytest.mark.parametrize(("break_folder", "message"), REFUSALS.values(), ids=REFUSALS)
def test_files_that_are_missing_or_of_two_trainings_are_rejected_before_the_store_is_touched(
    tmp_path, monkeypatch, break_folder, message
):
    weights = make_model(tmp_path, "run1")
    break_folder(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)  # where MLflow's default store would appear
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RegistrationRejected, match=message):
        main(weights, tmp_path / "model.pt")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_rejects_in_one_line(stage, tmp_path):
    done = stage("register")
    assert done.returncode == 1
    assert done.stderr == (
        "error: RegistrationRejected: artifacts/best_cnn_model.pth is missing; make it: make train\n"
    )
    assert not (tmp_path / "mlflow.db").exists()


@pytest.fixture
def tracking_server(tmp_path):
    """A real `mlflow server` on a free port, with a store of its own; its URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    command = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, *stores], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        uri = f"http://127.0.0.1:{port}"
        wait_until_healthy(uri, server, folder / "log")
        yield uri
    finally:
        os.killpg(server.pid, 15)  # its own session: the server and its workers
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)
            server.wait()


def wait_until_healthy(uri, server, log, deadline_s=90):
    end = time.monotonic() + deadline_s
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"mlflow server does not answer:\n{log.read_text()}")


def test_runs_and_versions_arrive_at_a_tracking_server(tracking_server, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server)
    mlflow.set_tracking_uri(tracking_server.replace("http://", "http://me:secret@"))  # it asks for no password
    with TrackedRun() as run:
        run.log_params({"train.epochs": 1})
        run.log_dataset("d1", Path("data/cifar10.npz"))
        run.log_metrics({"train_loss": 0.5}, 1)
    weights = make_model(tmp_path, run.id)
    registered = register_folder(weights)
    assert (registered["run_id"], registered["version"]) == (run.id, 1)
    assert registered["tracking_uri"] == tracking_server  # without the password

    client = mlflow.MlflowClient(tracking_server)
    recorded = client.get_run(run.id)
    assert (recorded.info.status, recorded.data.params) == ("FINISHED", {"train.epochs": "1"})
    assert recorded.data.metrics["test_accuracy"] == 0.75
    assert {file.path for file in client.list_artifacts(run.id)} >= {"environment.txt", "evaluation.json", "plots"}
    assert [version.tags["model_digest"] for version in versions(client)] == [registered["model_digest"]]
    folder = mlflow.artifacts.download_artifacts("models:/cifar/1", dst_path=str(tmp_path / "copy"))
    assert digest_file(Path(folder) / "artifacts" / "model.pt") == registered["model_digest"]
    assert not (tmp_path / "mlruns").exists()
