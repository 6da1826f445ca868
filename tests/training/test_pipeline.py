"""The pipeline as users of DVC meet it: the real `dvc`, in copies of the project with tiny images."""

import ast
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from moto.server import ThreadedMotoServer
from PIL import Image

from cifar.common.project import class_names
from training.data import Dataset
from training.evaluate import HEADLINE_METRICS

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PIPELINE: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]
MODULE_OF = {name: stage["cmd"].split()[-1] for name, stage in STAGES.items() if name != "archive"}

# Modules that a stage may import without depending on them, and why they cannot change what it makes.
WITHOUT_INFLUENCE = {
    "cifar.archives.strict_zip": "whether a file can be read, not what is made of it",
    "cifar.common.console": "messages and exit codes",
    "cifar.common.errors": "names of errors",
    "cifar.common.files": "how a file comes to its place and is opened, not what is in it",
    "cifar.common.mlflow_store": "where MLflow's store is",
    "training.errors": "names of errors",
    "training.external_checkpoint": "unwraps checkpoints that the pipeline does not write",
    "training.interrupt": "when a run stops; what it resumes from is the checkpoint's",
    "training.params": "hands on values, which are parameters of the stage",
    "training.progress": "what the terminal shows",
    "training.torchvision_compat": "lets torchvision be imported",
    "training.tracking": "what MLflow records: the run, the machine, the commit",
}


@dataclass(frozen=True)
class Project:
    """A checkout with its own git and DVC, and nothing of the machine's settings."""

    root: Path
    environment: dict[str, str]

    def dvc(self, *arguments: str, code: int = 0) -> str:
        """Run `dvc`; return what it and its stages print."""
        done = subprocess.run(
            [BIN / "dvc", *arguments], cwd=self.root, env=self.environment, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == code, f"dvc {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def dvc_json(self, *arguments: str) -> Any:
        return json.loads(self.dvc(*arguments, "--json"))

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True)
        assert done.returncode == 0, f"git {arguments}: {done.stderr}"
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "made by a test")

    def set_parameters(self, **sections: dict[str, Any]) -> None:
        """Change values of params.yaml: `train={"epochs": 2}`."""
        file = self.root / "params.yaml"
        content = yaml.safe_load(file.read_text())
        for section, values in sections.items():
            assert values.keys() <= content[section].keys()
            content[section] |= values
        file.write_text(yaml.safe_dump(content, sort_keys=False))

    def cached_outputs(self) -> dict[str, str]:
        """Digest of every file that DVC keeps, by path."""
        files = [file for out in cached_outs() for file in files_of(self.root / out)]
        return {str(file.relative_to(self.root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def copy(self, folder: Path) -> "Project":
        return Project(shutil.copytree(self.root, folder), self.environment)


def cached_outs() -> list[str]:
    outs = [out for stage in STAGES.values() for out in stage.get("outs", []) + stage.get("metrics", [])]
    return [out for out in outs if isinstance(out, str)]  # those with settings are not cached here


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def stages_run(output: str) -> list[str]:
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


@pytest.fixture(scope="module")
def environment(session_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("dvc")
    return os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{session_store}",
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(folder / "system"),
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_CONFIG_FILE": str(folder / "aws"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="module")
def first_run(
    environment: dict[str, str], make_dataset: Callable[..., Dataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, str]:
    """A project after its first `dvc repro`, committed; and what that printed. Not to be changed."""
    root = tmp_path_factory.mktemp("project")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0"):
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, root / name)
    write_images(make_dataset(), root / "data/images")
    project = Project(root, environment)
    project.set_parameters(
        prepare={"source": "folder", "path": "data/images", "validation_fraction": 0.5},
        model={"filters": [2, 2, 2], "hidden_width": 4},
        train={"epochs": 1, "batch_size": 16, "device": "cpu"},
        gate={"min_accuracy": 0, "min_class_recall": 0, "min_corrupted_accuracy": 0, "max_calibration_error": 1,
              "reference": None},
        archive={"version": "7.0"},
    )  # fmt: skip
    project.git("init", "--quiet")
    project.git("config", "user.name", "Test")
    project.git("config", "user.email", "test@example.org")
    project.commit()
    output = project.dvc("repro")
    project.commit()
    return project, output


def write_images(dataset: Dataset, folder: Path) -> None:
    """Write a tree of images as `prepare.source: folder` reads it."""
    parts = {"train": (dataset.train_images, dataset.train_labels), "test": (dataset.test_images, dataset.test_labels)}
    for part, (images, labels) in parts.items():
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = folder / part / class_names()[label] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)


@pytest.fixture
def project(first_run: tuple[Project, str], tmp_path: Path) -> Project:
    """A copy of the project after its first run, to do with as the test likes."""
    return first_run[0].copy(tmp_path / "project")


@pytest.fixture(scope="module")
def experiment(first_run: tuple[Project, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project after an experiment with other parameters, and what that printed. Not to be changed."""
    project = first_run[0].copy(tmp_path_factory.mktemp("experiment") / "project")
    return project, project.dvc("exp", "run", "-S", "train.epochs=2", "-S", "train.lr=0.0123", "evaluate")


@pytest.fixture
def bucket() -> Iterator[tuple[str, str]]:
    """The S3 address of an empty bucket on loopback, and the server's own address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    try:
        requests.put(f"{endpoint}/models", timeout=10).raise_for_status()
        yield "s3://models", endpoint
    finally:
        server.stop()


def test_first_repro_runs_every_stage_and_leaves_every_output(first_run):
    project, output = first_run
    ran = stages_run(output)
    assert sorted(ran) == sorted(STAGES)
    for before, after in (("prepare", "train"), ("train", "evaluate"), ("evaluate", "export"), ("export", "archive")):
        assert ran.index(before) < ran.index(after)
    assert all((project.root / out).exists() for out in cached_outs())
    assert (project.root / "artifacts/registered.json").exists()
    assert (project.root / "model_store/cifar-7.0.mar").exists()


def test_repro_leaves_nothing_for_git_but_the_lock_file(first_run):
    project, _ = first_run
    assert project.git("status", "--porcelain") == ""
    assert project.git("show", "--name-only", "--format=").split() == ["dvc.lock"]


def test_second_repro_runs_nothing(first_run):
    output = first_run[0].dvc("repro")
    assert stages_run(output) == []
    assert "Data and pipelines are up to date." in output


def test_python_bytecode_in_the_handler_folder_is_no_change(project):
    cache = project.root / "handler/__pycache__"
    cache.mkdir(exist_ok=True)  # the stage `evaluate` imports from there
    (cache / "pixels.cpython-311.pyc").write_bytes(b"bytecode")
    assert project.dvc_json("status") == {}


def test_changed_parameters_change_the_stages_that_read_them_and_no_others(project):
    project.set_parameters(
        prepare={"seed": 1}, model={"dropout": 0.123}, train={"lr": 0.0123}, gate={"min_accuracy": 0.01},
        export={"tolerance": 0.0123}, archive={"version": "8.0"},
    )  # fmt: skip
    status = project.dvc_json("status")
    assert status.pop("archive")  # its command and its output are named after the version
    assert {stage: set(changes[0]["changed deps"]["params.yaml"]) for stage, changes in status.items()} == {
        "prepare": {"prepare"},
        "train": {"model", "train"},
        "export": {"archive", "export", "gate"},
    }


def test_changed_version_exports_and_packs_again_without_training(project):
    project.set_parameters(archive={"version": "8.0"})
    assert stages_run(project.dvc("repro", "archive")) == ["export", "archive"]
    assert (project.root / "model_store/cifar-8.0.mar").exists()
    assert (project.root / "model_store/cifar-7.0.mar").exists()  # it may be served
    assert project.dvc_json("status").keys() == {"register"}  # it was not asked for


def test_closed_gate_ends_repro_before_anything_is_registered_or_packed(project):
    project.set_parameters(gate={"min_accuracy": 1})
    archive, registered = project.root / "model_store/cifar-7.0.mar", project.root / "artifacts/registered.json"
    before = archive.stat().st_mtime_ns, registered.stat().st_mtime_ns
    output = project.dvc("repro", code=255)
    assert stages_run(output) == ["export"]
    assert "gate.min_accuracy" in output
    assert (archive.stat().st_mtime_ns, registered.stat().st_mtime_ns) == before


def test_experiment_runs_what_its_parameter_changes_up_to_the_stage_named(experiment):
    project, output = experiment
    assert stages_run(output) == ["train", "evaluate"]
    assert len(rows_of(project.root / "artifacts/history.csv")) == 2
    assert "export" in project.dvc_json("status")  # what follows is reported as out of date


def test_experiment_is_listed_with_its_parameter_and_its_accuracy(experiment):
    project, _ = experiment
    rows = list(csv.DictReader(io.StringIO(project.dvc("exp", "show", "--csv"))))
    (run,) = [row for row in rows if row["typ"] == "branch_base"]
    measured = json.loads((project.root / "artifacts/evaluation.json").read_text())["accuracy"]
    assert run["train.epochs"] == "2"
    assert float(run["accuracy"]) == pytest.approx(measured)
    assert [row["train.epochs"] for row in rows if row["rev"] in ("master", "main")] == ["1"]


def test_metrics_are_compared_with_the_last_commit(experiment):
    project, _ = experiment
    (changes,) = project.dvc_json("metrics", "diff").values()
    assert changes["loss"]["old"] != changes["loss"]["new"]


def test_plots_show_two_revisions_beside_each_other(experiment, tmp_path):
    project, _ = experiment
    project.dvc("plots", "diff", "HEAD", "--out", str(tmp_path))
    plots = plots_of(tmp_path / "index.html")
    for title, plot in plots.items():
        assert {row["rev"] for row in plot["data"]["values"]} == {"HEAD", "workspace"}, title
    epochs = [(row["rev"], row["epoch"]) for row in plots["Learning rate"]["data"]["values"]]
    assert sorted(epochs) == [("HEAD", "1"), ("workspace", "1"), ("workspace", "2")]


def test_metrics_show_the_metrics_of_the_evaluation(first_run):
    project, _ = first_run
    measured = json.loads((project.root / "artifacts/evaluation.json").read_text())
    (shown,) = project.dvc_json("metrics", "show")[""]["data"].values()
    assert shown["data"] == {name: measured[name] for name in HEADLINE_METRICS}


def test_plots_show_curves_confusion_reliability_corruptions_and_images(first_run, tmp_path):
    project, _ = first_run
    project.dvc("plots", "show", "--out", str(tmp_path))
    plots = plots_of(tmp_path / "index.html")
    assert list(plots) == [
        "Loss", "Accuracy", "Learning rate", "Confusion matrix, test images", "Reliability, test images",
        "Accuracy on corrupted test images",
    ]  # fmt: skip
    loss, accuracy, learning_rate, confusion, reliability, corruptions = plots.values()
    assert series(loss) == {"train_loss", "validation_loss"}
    assert series(accuracy) == {"train_accuracy", "validation_accuracy"}
    (epoch,) = learning_rate["data"]["values"]
    assert float(epoch["learning_rate"]) > 0
    pairs = [(row["actual"], row["predicted"]) for row in confusion["data"]["values"]]
    assert len(pairs) == 20
    assert {actual for actual, _ in pairs} == set(class_names())
    assert all(0 <= float(row["confidence"]) <= 1 for row in reliability["data"]["values"])
    assert {row["severity"] for row in corruptions["data"]["values"]} == {"1", "2", "3", "4", "5"}
    assert corruptions["encoding"]["color"]["field"] == "corruption"  # a line each
    for plot in plots.values():
        assert not re.search(r"<DVC_METRIC_(?!ROW|COLUMN|GROUP)\w+>", json.dumps(plot))  # all filled in
        assert all(label for label in axis_titles(plot))
    pictures = re.findall(r'<img src="([^"]+)"', (tmp_path / "index.html").read_text())
    assert sorted(Path(picture).name.rpartition("plots_")[2] for picture in pictures) == [
        "confusion.png", "corruptions.png", "mistakes.png", "reliability.png",
    ]  # fmt: skip
    for picture in pictures:
        with Image.open(tmp_path / picture) as image:
            assert np.asarray(image).std() > 0


def test_default_remote_brings_every_output_back(project):
    before = project.cached_outputs()
    project.dvc("push")
    shutil.rmtree(project.root / ".dvc/cache")
    for out in cached_outs():
        for file in files_of(project.root / out):
            file.unlink()
    project.dvc("pull")
    assert project.cached_outputs() == before
    assert project.dvc_json("status") == {}
    assert (project.root / ".dvc/storage").is_dir()  # not outside the checkout, and git does not see it:
    assert project.git("status", "--porcelain") == ""


def test_clone_pulls_from_s3_what_was_pushed_and_does_not_train_again(project, bucket, tmp_path):
    address, endpoint = bucket
    project.dvc("remote", "add", "--default", "--force", "storage", f"{address}/cifar")
    project.dvc("remote", "modify", "storage", "endpointurl", endpoint)
    project.commit()
    project.dvc("push")
    project.git("clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", project.environment)
    clone.dvc("pull")
    assert clone.cached_outputs() == project.cached_outputs()
    # What another machine has to do itself: MLflow's store and the model store are its own.
    assert sorted(stages_run(clone.dvc("repro", "--dry"))) == ["archive", "register"]


def test_interrupted_repro_resumes_where_it_was(project):
    project.set_parameters(train={"epochs": 40, "early_stopping_patience": 40})
    log = project.root.parent / "repro.log"
    with log.open("w") as file:
        running = subprocess.Popen(
            [BIN / "dvc", "repro", "train"], cwd=project.root, env=project.environment, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_until((project.root / "artifacts/checkpoint.pt").exists, running)
        finally:
            os.killpg(running.pid, signal.SIGINT)  # as Ctrl-C does: DVC and its stage get it
        assert running.wait(timeout=300) != 0
    stopped_after = re.search(r"stopped after epoch (\d+)", log.read_text())
    assert stopped_after, log.read_text()
    assert f"resuming after epoch {stopped_after[1]} " in project.dvc("repro", "train")
    assert len(rows_of(project.root / "artifacts/history.csv")) == 40


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[Any], timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("stage", MODULE_OF)
def test_stage_depends_on_the_modules_that_change_its_result(stage):
    other_stages = {module for name, module in MODULE_OF.items() if name != stage}  # their results are dependencies
    imported = modules_imported(MODULE_OF[stage], other_stages | WITHOUT_INFLUENCE.keys())
    listed = {dep.removesuffix(".py").replace("/", ".") for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert listed == imported
    if "cifar.common.project" in imported:
        assert "handler/index_to_name.json" in STAGES[stage]["deps"]  # what it reads


def test_modules_without_influence_exist():
    for module in WITHOUT_INFLUENCE:
        assert path_of(module).exists(), f"{module} is gone; drop it here"


def test_every_section_of_params_yaml_but_the_search_is_a_parameter_of_a_stage():
    sections = yaml.safe_load((REPOSITORY / "params.yaml").read_text()).keys()
    of_stages = {name for stage in STAGES.values() for name in stage.get("params", [])}
    assert sections == of_stages | {"search"}  # which ends in values to train with, not in files


def modules_imported(module: str, passed_over: set[str]) -> set[str]:
    """Return `module` and those of this project that it imports or names, itself or through others."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in passed_over:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path_of(name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("cifar.", "training.")):
                waiting.append(str(node.module))
            elif isinstance(node, ast.ImportFrom) and path_of(f"handler.{node.module}").exists():
                waiting.append(f"handler.{node.module}")  # which is imported by its bare name
            elif isinstance(node, ast.Constant) and str(node.value).endswith(".py"):
                waiting.append(f"training.{str(node.value).removesuffix('.py')}")
    return found


def path_of(module: str) -> Path:
    return REPOSITORY / f"{module.replace('.', '/')}.py"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def plots_of(page: Path) -> dict[str, Any]:
    """The Vega-Lite specifications of a page of `dvc plots`, by title."""
    found = re.findall(r"var spec = (\{.*\});$", page.read_text(), re.MULTILINE)
    return {plot["title"]["text"]: plot for plot in map(json.loads, found)}


def series(plot: dict[str, Any]) -> set[str]:
    return {row["field"] for row in plot["data"]["values"]}


def axis_titles(part: Any) -> Iterator[str | None]:
    """The titles of the axes x and y, wherever a specification has them."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("x", "y") and isinstance(value, dict) and "title" in value:
                yield value["title"]
            yield from axis_titles(value)
    elif isinstance(part, list):
        for item in part:
            yield from axis_titles(item)
