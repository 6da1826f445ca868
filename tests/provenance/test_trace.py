"""Traces of a real archive, with a real MLflow store, a real git checkout and real weights behind it."""

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest
import torch
import typer
from typer.testing import CliRunner

from answers import ModelInfo
from cifar.archives.build import normalise
from cifar.archives.reference_outputs import synthetic_images
from cifar.cli.trace import trace as trace_command
from cifar.common.errors import NothingToTrace
from cifar.common.files import digest_file
from cifar.common.project import class_names
from cifar.provenance.archive import find_digest, find_version, read_archive
from cifar.provenance.trace import trace
from cifar.server.desired_state import DesiredState, ServedVersion, read_desired_state, write_desired_state
from description import describe_model
from tests.support.fake_server import FakeServer, Reply
from training.export import describe, export
from training.model import ModelParams, build_classifier
from training.register import main as register
from training.tracking import TrackedRun
from training.weights import load_classifier, plain_values, save_weights

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMS = ModelParams("SimpleCNN", filters=(4, 4), hidden_width=8)
TRAIN = {"epochs": 3, "lr": 0.05, "optimizer": "sgd", "compile": None}
DATA = "7f" * 32
LINKS = ["archive", "TorchScript", "weights", "run", "commit", "data", "parameters", "accuracy", "server"]

# MLflow's own, when it imports its pyfunc flavour for the first time.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")


def write(path, content):
    path.write_bytes(orjson.dumps(content))


def change(path, **values):
    write(path, orjson.loads(path.read_bytes()) | values)


def git(folder, *arguments):
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@localhost", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder, message):
    """Make a repository with one more commit; what was trained is not in it."""
    git(folder, "init", "--quiet")
    (folder / "code.py").write_text(message)
    git(folder, "add", "code.py")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


@dataclass
class Chain:
    """A checkout, a model store, MLflow's database, and a server's address."""

    root: Path
    url: str

    @property
    def checkout(self):
        return self.root / "checkout"

    @property
    def weights(self):
        return self.checkout / "artifacts" / "best_cnn_model.pth"

    @property
    def record(self):
        return self.weights.parent / "training.json"

    @property
    def evaluation(self):
        return self.weights.parent / "evaluation.json"

    @property
    def store(self):
        return self.root / "model_store"

    @property
    def archive(self):
        return self.store / "cifar-3.0.mar"

    @property
    def serving(self):
        serving = read_desired_state(self.store)
        assert serving is not None
        return serving

    @property
    def client(self):
        import mlflow

        return mlflow.MlflowClient()

    @property
    def metadata(self):
        """What the archive's TorchScript file says of itself."""
        return orjson.loads((self.root / "metadata.json").read_bytes())

    @property
    def run_id(self):
        return self.metadata["mlflow_run"]

    def export(self, model, version="3.0"):
        """Export the weights that are there, as training does it."""
        torch.manual_seed(0)
        classifier = build_classifier(PARAMS).eval()
        classifier.network.load_state_dict(torch.load(self.weights, weights_only=True))
        export(classifier, describe(self.weights, version), synthetic_images(2), 1e-5, model)

    def pack(self, model, archive, version="3.0"):
        """Pack it as `make archive` does it."""
        source = self.root / "packed"
        files = ["--serialized-file", model, "--handler", REPOSITORY / "handler" / "cifar_handler.py"]
        command = [Path(sys.executable).with_name("torch-model-archiver"), "--model-name", "cifar", *files]
        subprocess.run(
            [*map(str, command), "--force", "--version", version, "--export-path", str(self.root)],
            env=os.environ | {"TMPDIR": str(self.root)},
            check=True,
            capture_output=True,
        )
        normalise((self.root / "cifar.mar").rename(source), archive)
        source.unlink()

    def ask(self, *arguments, **options):
        """Run the command."""
        app = typer.Typer()
        app.command()(trace_command)
        folders = ["--model-store", str(self.store), "--checkout", str(self.checkout), "--management-url", self.url]
        return CliRunner().invoke(app, [*arguments, *folders], **options)

    def links(self, *arguments):
        """Run the command, for the deployed version unless another is asked for; its links, and its exit code."""
        done = self.ask(*(arguments or ("--version", "3.0")), "--json")
        document = json.loads(done.stdout)
        assert [link["name"] for link in document["links"]] == LINKS
        assert document["holds"] == (done.exit_code == 0)
        return {link["name"]: link for link in document["links"]}, done.exit_code

    def table(self):
        """Run the command on a terminal of 80 columns; its lines."""
        return self.ask("--version", "3.0", env={"COLUMNS": "80"}).stdout.splitlines()


def copy_database(source, target):
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


@contextlib.contextmanager
def tracking_in(folder):
    """Make a folder's database MLflow's store."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory, session_store):
    """Do what training, evaluation, export, registration, packing and deployment leave."""
    chain = Chain(tmp_path_factory.mktemp("chain"), "")
    copy_database(session_store, chain.root / "mlflow.db")
    chain.weights.parent.mkdir(parents=True)
    chain.store.mkdir()
    head = commit(chain.checkout, "the training's code")
    torch.manual_seed(0)
    save_weights(build_classifier(PARAMS).network.state_dict(), chain.weights)
    parameters = {"model": plain_values(PARAMS), "train": TRAIN}
    with tracking_in(chain.root):
        for model in chain.client.search_registered_models():  # of other tests, which use the same store
            chain.client.delete_registered_model(model.name)
        with TrackedRun() as run:
            run.log_params({f"{part}.{key}": value for part in parameters for key, value in parameters[part].items()})
            run.set_tags({"git_commit": head, "data_digest": DATA})
        write(chain.record, parameters | {"git_commit": head, "data_digest": DATA, "mlflow_run": run.id})
        weights_digest = digest_file(chain.weights)
        figures = {"accuracy": 0.8527, "images": 20, "classes": {}}
        write(chain.evaluation, figures | {"data_digest": DATA, "weights_digest": weights_digest})
        write(chain.root / "metadata.json", describe(chain.weights, "3.0"))
        model = chain.weights.with_name("model.pt")
        chain.export(model)
        register(chain.weights, model)
    chain.pack(model, chain.archive)
    served = ServedVersion("3.0", chain.archive.name, digest_file(chain.archive))
    write_desired_state(chain.store, DesiredState("3.0", (served,)))
    return chain.root


@pytest.fixture(scope="module")
def closed_url():
    """An address where nothing listens any more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def chain(template, tmp_path, closed_url, monkeypatch):
    """A copy that the test may break; no server runs."""
    root = tmp_path / "chain"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    with tracking_in(root):
        yield Chain(root, closed_url)


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.stop()


def serve(server, chain, registered="3.0", workers="READY", **changes):
    """Have a server answer for a version as TorchServe with this project's handler does."""
    metadata = chain.metadata | changes
    model = ModelInfo("cifar", changes.get("version", registered), list(class_names()))
    customized = json.loads(orjson.dumps(describe_model(model, metadata["weights_digest"][:12], metadata)))
    described = {
        "modelName": "cifar",
        "modelVersion": registered,
        "modelUrl": chain.archive.name,
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 16,
        "maxBatchDelay": 1,
        "responseTimeout": 30,
        "workers": [{"id": "9000", "startTime": "2026-11-23T20:07:03.958Z", "status": workers, "pid": 31098}],
        "jobQueueStatus": {"remainingCapacity": 100, "pendingRequests": 0},
    }

    def reply(request):
        if request.path != f"/models/cifar/{registered}":
            missing = {"code": 404, "type": "ModelVersionNotFoundException", "message": "no such version"}
            return Reply(404, json.dumps(missing).encode())
        own = {"customizedMetadata": customized} if "customized" in request.query else {}
        return Reply(200, json.dumps([described | own]).encode())

    server.reply = reply
    chain.url = server.url


def contents(folder):
    return {file.relative_to(folder): file.stat().st_size for file in folder.rglob("*")}


def test_every_link_of_a_whole_chain_holds_and_nothing_is_left_behind(chain, server):
    serve(server, chain)
    before = contents(chain.root)
    links, exit_code = chain.links()
    assert exit_code == 0
    assert {name: link["holds"] for name, link in links.items()} == dict.fromkeys(LINKS, True)
    metadata = chain.metadata
    assert {name: link["value"] for name, link in links.items()} == {
        "archive": digest_file(chain.archive),
        "TorchScript": digest_file(chain.weights.with_name("model.pt")),
        "weights": digest_file(chain.weights),
        "run": chain.run_id,
        "commit": git(chain.checkout, "rev-parse", "HEAD"),
        "data": DATA,
        "parameters": f"{len(plain_values(PARAMS)) + len(TRAIN)} recorded",
        "accuracy": 0.8527,
        "server": server.url,
    }
    assert {name: link["note"] for name, link in links.items()} == {
        "archive": "as in cifar-3.0.mar.sha256, serving.json",
        "TorchScript": "version 1 in MLflow's registry",
        "weights": "artifacts/best_cnn_model.pth; as in the registered version",
        "run": "FINISHED in MLflow; as in training.json, the registered version",
        "commit": "in this checkout; as in the run, training.json, the registered version",
        "data": "as in the run, training.json, the registered version, evaluation.json",
        "parameters": "as in the run, training.json",
        "accuracy": "as in the run, evaluation.json, the registered version",
        "server": "it serves version 3.0 of these weights",
    }
    assert metadata["weights_digest"] == links["weights"]["value"]
    assert contents(chain.root) == before


def test_all_parameters_are_in_the_document_and_the_important_ones_below_the_table(chain):
    document = json.loads(chain.ask("--version", "3.0", "--json").stdout)
    parameters = {"model.filters": "[4, 4]", "train.lr": "0.05", "train.compile": "None"}
    assert document["parameters"].items() >= parameters.items()
    assert "Trained with model.name=SimpleCNN, model.filters=[4, 4]" in "\n".join(chain.table())


def test_the_table_fits_80_columns_and_marks_each_link(chain):
    change(chain.evaluation, accuracy=0.5)
    lines = chain.table()
    assert max(map(len, lines[1:])) <= 80  # the first is the file's path
    words = [line.split() for line in lines]
    marks = {first: second for first, second, *_ in filter(lambda line: len(line) > 1, words) if second in "✓✗–"}
    assert marks == dict.fromkeys(LINKS, "✓") | {"accuracy": "✗", "server": "–"}
    assert next(line[2] for line in words if line[:1] == ["accuracy"]) == "85.27%"
    assert next(line[2] for line in words if line[:1] == ["weights"]) == f"{chain.metadata['weights_digest'][:12]}…"


def say_otherwise(chain):
    """Change what the store remembers of the deployed archive."""
    serving = chain.serving
    write_desired_state(chain.store, replace(serving, versions=(replace(serving.versions[0], sha256="f" * 64),)))


def record_other_digest(chain):
    chain.archive.with_name("cifar-3.0.mar.sha256").write_text(f"{'f' * 64}  cifar-3.0.mar\n")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_the_handler(chain):
    """Flip a byte that neither the manifest nor the network has, and record the digest of what came of it."""
    content = chain.archive.read_bytes()
    at = content.index(b"class CifarHandler")
    chain.archive.write_bytes(content[:at] + b"K" + content[at + 1 :])
    forget_digests(chain)


def forget_digests(chain):
    chain.archive.with_name("cifar-3.0.mar.sha256").unlink()
    (chain.store / "serving.json").unlink()


def rewrite_history(chain):
    shutil.rmtree(chain.checkout / ".git")
    commit(chain.checkout, "another history")


def trained_into_another_run(chain):
    import mlflow

    with mlflow.start_run(experiment_id=chain.client.get_run(chain.run_id).info.experiment_id) as run:
        pass
    with contextlib.closing(sqlite3.connect(chain.root / "mlflow.db")) as database:
        database.execute("update model_versions set run_id = ?", [run.info.run_id])
        database.commit()


BREAKS = {
    "the deployed digest": (say_otherwise, "archive", "serving.json says f{64}"),
    "the recorded digest": (record_other_digest, "archive", r"cifar-3\.0\.mar\.sha256 says f{64}"),
    "an unreadable digest": (
        lambda chain: chain.archive.with_name("cifar-3.0.mar.sha256").write_text(""),
        "archive",
        r"sha256 says nothing",
    ),
    "a damaged handler": (
        damage_the_handler,
        "archive",
        r"it is truncated or no archive \(damaged in 'cifar_handler\.py'",
    ),
    "another TorchScript file": (
        lambda chain: chain.client.set_model_version_tag("cifar", "1", "model_digest", "f" * 64),
        "TorchScript",
        "version 1 in MLflow's registry, of the same weights, is the file f{64}",
    ),
    "changed weights": (
        lambda chain: flip_a_byte(chain.weights),
        "weights",
        r"by its training\.json artifacts/best_cnn_model\.pth is of the same run, but its SHA-256 is \w{64}",
    ),
    "an unreadable record": (lambda chain: chain.record.write_text("?"), "weights", r"training\.json is no JSON"),
    "weights in the registry": (
        lambda chain: chain.client.set_model_version_tag("cifar", "1", "weights_digest", "f" * 64),
        "weights",
        "the registered version says f{64}",
    ),
    "a killed run": (
        lambda chain: chain.client.set_terminated(chain.run_id, "KILLED"),
        "run",
        "KILLED in MLflow, expected FINISHED",
    ),
    "a deleted run": (lambda chain: chain.client.delete_run(chain.run_id), "run", "deleted; bring it back"),
    "the record's run": (
        lambda chain: change(chain.record, mlflow_run="other"),
        "run",
        r"^training\.json says other$",
    ),
    "the registry's run": (trained_into_another_run, "run", r"the registered version says \w{32}"),
    "a lost commit": (rewrite_history, "commit", "no such commit in this checkout"),
    "the run's commit": (
        lambda chain: chain.client.set_tag(chain.run_id, "git_commit", "f" * 40),
        "commit",
        "the run says f{40}",
    ),
    "the record's commit": (
        lambda chain: change(chain.record, git_commit="f" * 40),
        "commit",
        r"training\.json says f{40}",
    ),
    "the run's data": (
        lambda chain: chain.client.set_tag(chain.run_id, "data_digest", "d2"),
        "data",
        "^the run says d2$",
    ),
    "the test images' data": (
        lambda chain: change(chain.evaluation, data_digest="d2"),
        "data",
        r"^evaluation\.json says d2$",
    ),
    "the record's parameters": (
        lambda chain: change(chain.record, train=TRAIN | {"lr": 0.1}),
        "parameters",
        r"^train\.lr is 0\.05 in the run, 0\.1 in training\.json$",
    ),
    "the figures": (
        lambda chain: change(chain.evaluation, accuracy=0.99),
        "accuracy",
        r"^evaluation\.json says 0\.99$",
    ),
    "the run's figures": (
        lambda chain: chain.client.log_metric(chain.run_id, "test_accuracy", 0.5, step=1),
        "accuracy",
        r"^the run says 0\.5$",
    ),
    "the registry's figures": (
        lambda chain: chain.client.set_model_version_tag("cifar", "1", "accuracy", "much"),
        "accuracy",
        "^the registered version says much$",
    ),
    "figures of other weights": (
        lambda chain: change(chain.evaluation, weights_digest="f" * 64),
        "accuracy",
        r"^evaluation\.json is of other weights: f{64}$",
    ),
}


@pytest.mark.parametrize(("break_chain", "name", "note"), BREAKS.values(), ids=BREAKS)
def test_a_link_that_does_not_hold_is_named_and_no_other(chain, break_chain, name, note):
    break_chain(chain)
    links, exit_code = chain.links()
    assert exit_code == 1
    assert [link["name"] for link in links.values() if link["holds"] is False] == [name]
    assert re.search(note, links[name]["note"]), links[name]["note"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"weights_digest": "f" * 64}, r"^it says weights_digest f{64}, the archive \w{64}$"),
        ({"git_commit": "f" * 40}, r"^it says git_commit f{40}, the archive \w{40}$"),
        ({"accuracy": 0.5}, r"^it says accuracy 0\.5, the archive 0\.8527$"),
        ({"version": "2.0"}, r"^it says version 2\.0, the archive 3\.0$"),
    ],
    ids=["weights", "commit", "accuracy", "version"],
)
def test_a_server_that_runs_something_else_is_told(chain, server, changes, note):
    serve(server, chain, **changes)
    links, exit_code = chain.links()
    assert exit_code == 1
    assert [link["name"] for link in links.values() if link["holds"] is False] == ["server"]
    assert re.search(note, links["server"]["note"]), links["server"]["note"]


def test_a_damaged_archive_breaks_the_first_link_and_the_others_cannot_be_checked(chain):
    content, digest = chain.archive.read_bytes(), digest_file(chain.archive)
    inside = content.index(b"/extra/metadata.json")
    for damaged in (content[: len(content) // 2], b"", content[:inside] + b"?" + content[inside + 1 :]):
        chain.archive.write_bytes(damaged)
        links, exit_code = chain.links()
        assert exit_code == 1
        assert "it is truncated or no archive" in links["archive"]["note"]
        assert f"serving.json says {digest}" in links["archive"]["note"]
        rest = [links[name] for name in LINKS[1:]]
        assert {(link["holds"], link["note"]) for link in rest} == {(None, "the archive cannot be read")}


def test_code_that_was_never_committed_does_not_hold_although_everybody_says_the_same(chain):
    dirty = f"{chain.metadata['git_commit']}-dirty"
    change(chain.record, git_commit=dirty)
    chain.client.set_tag(chain.run_id, "git_commit", dirty)
    chain.export(chain.root / "model.pt", "3.1")
    chain.pack(chain.root / "model.pt", chain.root / "other.mar", "3.1")
    links, exit_code = chain.links("--archive", str(chain.root / "other.mar"))
    assert exit_code == 1
    assert [link["name"] for link in links.values() if link["holds"] is False] == ["commit"]
    assert links["commit"]["value"] == dirty
    assert links["commit"]["note"] == "the training's code had changes that were never committed"
    # Not the file of the registered version, and not meant to be: another archive version.
    assert links["TorchScript"]["holds"] is None
    assert links["TorchScript"]["note"].startswith("not registered in this store (sqlite:///")


def hide_git(chain, monkeypatch):
    monkeypatch.setenv("PATH", str(chain.root))


def lie_in_another_checkout(chain, monkeypatch):
    shutil.rmtree(chain.checkout / ".git")
    commit(chain.root, "another project")


def clone_the_last_commit(chain, monkeypatch):
    commit(chain.checkout, "another commit")
    shutil.move(chain.checkout, chain.root / "origin")
    git(chain.root, "clone", "--quiet", "--depth=1", (chain.root / "origin").as_uri(), str(chain.checkout))
    shutil.copytree(chain.root / "origin" / "artifacts", chain.checkout / "artifacts")


def empty_the_store(chain, monkeypatch):
    with contextlib.closing(sqlite3.connect(chain.root / "mlflow.db")) as database:
        for table in ("model_version_tags", "model_versions", "registered_models", "params", "tags", "runs"):
            database.execute(f"delete from {table}")
        database.commit()


def spoil_the_store(chain, monkeypatch):
    (chain.root / "spoilt.db").write_bytes(b"no database" * 1000)
    use_store(chain, monkeypatch, f"sqlite:///{chain.root / 'spoilt.db'}")


def use_store(chain, monkeypatch, uri):
    import mlflow

    mlflow.set_tracking_uri(uri)


TRACKING = ["TorchScript", "run", "parameters"]
UNCHECKED = {
    "no server": (lambda chain, _: None, [], {"server": "^no server answers: nothing listens there$"}),
    "no digest": (lambda chain, _: forget_digests(chain), ["archive"], {"archive": r"never recorded: no cifar-3\.0"}),
    "no weights": (
        lambda chain, _: shutil.rmtree(chain.weights.parent),
        ["weights", "parameters"],
        {"weights": "^no such weights in this checkout", "parameters": "^in the run alone: its weights are not here$"},
    ),
    "no MLflow": (
        lambda chain, monkeypatch: monkeypatch.setitem(sys.modules, "mlflow", None),
        TRACKING,
        {"run": r"MLflow is not installed .*training\]'; as in training\.json$", "TorchScript": "not installed"},
    ),
    "no store": (
        lambda chain, monkeypatch: use_store(chain, monkeypatch, "sqlite:///nowhere.db"),
        TRACKING,
        {"run": r"there is no store at sqlite:///nowhere\.db; MLFLOW_TRACKING_URI names another"},
    ),
    "a spoilt store": (
        spoil_the_store,
        TRACKING,
        {"run": r"nothing can be looked up in MLflow's store sqlite:.*spoilt"},
    ),
    "another store": (
        empty_the_store,
        TRACKING,
        {
            "run": r"not in this store \(sqlite:///.*mlflow\.db\)",
            "TorchScript": r"^not registered in this store \(sqlite:///.*mlflow\.db\)$",
            "parameters": r"^in training\.json alone: its run is not here$",
        },
    ),
    "no git": (hide_git, ["commit"], {"commit": "^git cannot be run: No such file or directory; as in the run"}),
    "no checkout": (
        lambda chain, _: shutil.rmtree(chain.checkout / ".git"),
        ["commit"],
        {"commit": "checkout is no git checkout"},
    ),
    "another checkout": (lie_in_another_checkout, ["commit"], {"commit": "checkout is no git checkout"}),
    "a shallow checkout": (clone_the_last_commit, ["commit"], {"commit": "is shallow: git fetch --unshallow"}),
}


@pytest.mark.parametrize(("hide", "names", "notes"), UNCHECKED.values(), ids=UNCHECKED)
def test_what_cannot_be_reached_is_not_checked_which_is_no_failure(chain, monkeypatch, hide, names, notes):
    hide(chain, monkeypatch)
    before = contents(chain.root)
    links, exit_code = chain.links()
    assert exit_code == 0
    unchecked = [link["name"] for link in links.values() if link["holds"] is None]
    assert unchecked == [*names, "server"]
    for name, note in notes.items():
        assert re.search(note, links[name]["note"]), links[name]["note"]
    assert contents(chain.root) == before


@pytest.mark.parametrize(
    ("version", "workers", "note"),
    [("2.0", "READY", "no such version"), ("3.0", "UNLOADING", "^no worker of version 3.0 is ready$")],
    ids=["another version", "no worker"],
)
def test_a_server_that_cannot_tell_is_not_checked(chain, server, version, workers, note):
    serve(server, chain, version, workers)
    links, exit_code = chain.links()
    assert (links["server"]["holds"], exit_code) == (None, 0)
    assert re.search(note, links["server"]["note"]), links["server"]["note"]


def test_a_mirror_image_that_was_asked_for_after_the_training_is_no_contradiction(chain):
    change(chain.record, model=plain_values(PARAMS) | {"flip_tta": True})
    links, exit_code = chain.links()
    assert (links["parameters"]["holds"], exit_code) == (True, 0)


def test_what_was_trained_into_another_store_and_registered_here_is_traced_to_its_run(chain, monkeypatch):
    empty_the_store(chain, monkeypatch)
    register(chain.weights, chain.weights.with_name("model.pt"))
    links, exit_code = chain.links()
    assert (links["TorchScript"]["holds"], links["run"]["holds"], exit_code) == (True, None, 0)
    assert re.fullmatch(r"not in this store .*; as in training\.json, the registered version", links["run"]["note"])


def test_weights_from_elsewhere_are_not_recorded_rather_than_wrong(chain):
    for name in ("training.json", "evaluation.json"):
        (chain.weights.parent / name).unlink()
    chain.export(chain.root / "model.pt", "4.0")
    chain.pack(chain.root / "model.pt", chain.store / "cifar-4.0.mar", "4.0")
    links, exit_code = chain.links("--version", "4.0")
    assert exit_code == 0
    assert [name for name, link in links.items() if link["holds"]] == ["archive", "weights"]
    for name in ("run", "commit", "data", "accuracy"):
        assert links[name]["note"] == "the export did not record it"
    assert links["parameters"]["note"] == "neither its run nor its weights are here"


def test_shipped_weights_hold_without_their_run(chain):
    shutil.copytree(REPOSITORY / "training" / "pretrained", chain.checkout / "training" / "pretrained")
    weights = chain.checkout / "training" / "pretrained" / "1.0" / "best_cnn_model.pth"
    export(load_classifier(weights), describe(weights, "1.0"), synthetic_images(2), 1e-4, chain.root / "model.pt")
    chain.pack(chain.root / "model.pt", chain.store / "cifar-1.0.mar", "1.0")
    found = trace(find_version(chain.store, "1.0"), chain.store, chain.checkout, chain.url)
    links = {link.name: link for link in found.links}
    assert [name for name in links if links[name].holds] == ["archive", "weights", "data", "accuracy"]
    assert re.match(r"not in this store \(sqlite:///.*mlflow\.db\)", links["run"].note)
    assert found.parameters["train.epochs"] == 60


def test_an_archive_is_found_by_the_header_and_by_every_other_digest(chain):
    metadata, model = chain.metadata, digest_file(chain.weights.with_name("model.pt"))
    whole = digest_file(chain.archive)
    for digest in (metadata["weights_digest"][:12], whole, whole[:8].upper(), f"sha256:{whole}", model[:12]):
        assert find_digest(chain.store, digest) == read_archive(chain.archive)
    assert chain.links(metadata["weights_digest"][:12])[1] == 0


def test_a_version_is_found_by_what_was_deployed_else_by_the_manifest(chain):
    normalise(chain.archive, chain.store / "canary.mar", "3.1")
    (chain.store / ".half.mar").write_bytes(b"being written")
    assert find_version(chain.store, "3.1").path.name == "canary.mar"
    # The deployed one, whoever else claims to be it.
    shutil.copy(chain.archive, chain.store / "aaa.mar")
    assert find_version(chain.store, "3.0").path == chain.archive
    links, exit_code = chain.links("--version", "3.1")
    assert (exit_code, links["archive"]["note"]) == (0, "as in canary.mar.sha256")


def test_a_file_outside_the_store_may_be_another_than_the_deployed_one(chain):
    file = chain.root / chain.archive.name
    normalise(chain.archive, file, "3.1")
    links, exit_code = chain.links("--archive", str(file))
    assert (exit_code, links["archive"]["note"]) == (0, "as in cifar-3.0.mar.sha256")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--version", "9.9"),
            r"No archive in \S+ is of version 9\.9\. It holds .*; cifar-3\.0\.mar \(version 3\.0, weights \w{12}, SHA",
        ),
        (
            ("f" * 12,),
            r"No archive in \S+ has the digest f{12}\. It holds bad\.mar, but it is truncated.*; cifar-3\.0",
        ),
        (("3.0",), "'3.0' is no digest; expected 8 to 64 hexadecimal digits.* --version"),
        (("--archive", "none.mar"), r"none\.mar cannot be read: No such file or directory\. Name another"),
    ],
    ids=["version", "digest", "no digest", "file"],
)
def test_what_is_not_there_is_told_with_what_is(chain, arguments, message):
    (chain.store / "bad.mar").write_bytes(b"no archive")
    (chain.store / ".bad.mar").write_bytes(b"being written")
    done = chain.ask(*arguments)
    assert isinstance(done.exception, NothingToTrace)
    with pytest.raises(NothingToTrace, match=message):
        raise done.exception


def test_of_several_archives_none_is_picked(chain):
    for name in ("a.mar", "b.mar"):
        normalise(chain.archive, chain.store / name, "3.1")
    for find, what in ((find_version, "3.1"), (find_digest, chain.metadata["weights_digest"][:12])):
        with pytest.raises(
            NothingToTrace, match=r"More than one archive in .*a\.mar \(version 3\.1.*; b\.mar .*--archive"
        ):
            find(chain.store, what)


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    with pytest.raises(NothingToTrace, match=r"no archive at all \(build one: make archive"):
        find_version(tmp_path, "1.0")


def test_exactly_one_thing_is_traced(chain):
    for arguments in (("--version", "3.0", "--archive", "x.mar"), ("f" * 12, "--version", "3.0"), ()):
        done = chain.ask(*arguments)
        assert done.exit_code == 2
        assert "name one: a digest, --version or --archive" in done.stderr


def test_commands_that_trace_nothing_load_neither_pytorch_nor_mlflow():
    program = "import sys, cifar.provenance.trace; print(*sorted({'torch', 'mlflow'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
