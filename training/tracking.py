"""Runs in MLflow: what one was made of, in which environment, and its metrics, epoch by epoch."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from importlib.metadata import distributions
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from cifar.common.errors import TrackingError
from cifar.common.mlflow_store import first_contact, import_mlflow, store_errors

EXPERIMENT = "cifar"  # MLFLOW_EXPERIMENT_NAME names another
ENVIRONMENT_NAME = "environment.txt"  # an artifact of the run
_FILE = Path(__file__).resolve()


class RunLog:
    """Writes into a run of MLflow, whatever its status, and leaves that as it is.

    Every method raises TrackingError when the store cannot be reached any more, or rejects the call.

    Args:
        run_id: the run; it must be in the store.
    """

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self._mlflow = import_mlflow()
        self._client = self._mlflow.MlflowClient()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, `section.key` to value."""
        with self._recording("parameters"):
            # With the run's id: another run, a trial's, may be MLflow's active one.
            self._mlflow.log_params(dict(params), run_id=self.id)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run was made of: data digest, git commit."""
        with self._recording("tags"):
            self._client.log_batch(self.id, tags=[self._mlflow.entities.RunTag(*tag) for tag in tags.items()])

    def log_metrics(self, metrics: Mapping[str, float], epoch: int = 0) -> None:
        """Record the metrics of one epoch, or of the run as a whole."""
        with self._recording("metrics"):
            self._mlflow.log_metrics(dict(metrics), step=epoch, run_id=self.id)

    def log_dataset(self, digest: str, source: Path, context: str = "training") -> None:
        """Record which data set the run saw, so that MLflow lists and finds runs by it; the data are not copied.

        Args:
            digest: of the data; MLflow keeps its first 36 characters.
            source: the file.
            context: what it was used for.
        """
        entities = self._mlflow.entities
        dataset = entities.Dataset(
            name=source.stem, digest=digest[:36], source_type="local", source=json.dumps({"uri": str(source)})
        )
        tags = [entities.InputTag("mlflow.data.context", context)]
        with self._recording("the data set"):
            self._client.log_inputs(self.id, [entities.DatasetInput(dataset, tags)])

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file with the run, or of what a folder holds; `folder` is where."""
        with self._recording(path.name):
            if path.is_dir():
                self._client.log_artifacts(self.id, str(path), folder)
            else:
                self._client.log_artifact(self.id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text with the run, as a file of this name."""
        with self._recording(name):
            self._client.log_text(self.id, text, name)

    def _recording(self, what: str) -> AbstractContextManager[None]:
        return store_errors(f"{what} of the run {self.id} cannot be recorded")


class TrackedRun(RunLog):
    """A run, new or resumed; ended as FINISHED, KILLED (stopped on purpose) or FAILED.

    A new run has its environment recorded: a tag for each fact, and the installed packages in `environment.txt`.

    Args:
        run_id: the run to resume; None begins a new one.
        parent_run_id: the run that this one is a part of, as a trial is of a search; it may still be running here.
        name: of a new run, for people; None lets MLflow make one up.

    Raises:
        TrackingError: the store cannot be used, or has no such run.
    """

    def __init__(self, run_id: str | None = None, parent_run_id: str | None = None, name: str | None = None) -> None:
        mlflow = import_mlflow()
        self._status = "FINISHED"
        rejection = f"the run {run_id} cannot be resumed" if run_id else "no run can be started"
        with store_errors(rejection, "; --fresh begins a new run" if run_id else ""), first_contact():
            choose_experiment(run_id or parent_run_id)
            run = mlflow.start_run(
                run_id=run_id,
                run_name=name,
                nested=parent_run_id is not None,
                parent_run_id=parent_run_id,
                tags=None if run_id else describe_environment(),
            )
        super().__init__(run.info.run_id)
        if run_id is None:
            self._log_packages()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with store_errors(f"the end of the run {self.id} cannot be recorded"):
                self._mlflow.end_run(self._status)
            return
        # The error is what the user must see, at once, also when it came from the store that this needs.
        with suppress(TrackingError), store_errors("no end"), first_contact():
            self._mlflow.end_run("FAILED")

    def mark_stopped(self) -> None:
        """Say that the run was stopped on purpose before its end."""
        self._status = "KILLED"

    def _log_packages(self) -> None:
        try:
            self.log_text("\n".join(installed_distributions()) + "\n", ENVIRONMENT_NAME)
        except TrackingError as error:
            self.__exit__(type(error), error, None)  # `with` has not begun, and would not end it
            raise


def choose_experiment(run_id: str | None) -> None:
    """Make a run's experiment MLflow's active one; without a run, the one that the user or this project names."""
    mlflow = import_mlflow()
    if run_id:
        mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
    else:
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)


def has_run(run_id: str) -> bool:
    """Tell whether the store has a run, and not in its bin."""
    mlflow = import_mlflow()
    with store_errors(f"the run {run_id} cannot be looked up"), first_contact():
        try:
            return bool(mlflow.get_run(run_id).info.lifecycle_stage == "active")
        except mlflow.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise


def describe_environment() -> dict[str, str]:
    """Return what speed and results depend on besides code, data and parameters; `cuda…` only where there is a GPU."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": str(os.cpu_count()),
        "torch": torch.__version__,
        "torch_threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        facts |= {"cuda": str(torch.version.cuda), "cuda_device": torch.cuda.get_device_name()}
    return facts


def installed_distributions() -> list[str]:
    """Return `name==version` of every distribution that can be imported from here, sorted by name."""
    # A name may be found twice, in two folders of sys.path; the first one is imported.
    found: dict[str, str] = {}
    for distribution in distributions():
        if "Name" in distribution.metadata:  # a half-removed package leaves a folder without metadata
            found.setdefault(distribution.name, f"{distribution.name}=={distribution.version}")
    return sorted(found.values(), key=str.lower)


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit(file: Path = _FILE) -> str:
    """Return the commit's hash, with `-dirty` behind it where tracked files differ; `unknown` outside a checkout.

    `dvc.lock` may differ: `dvc repro` writes it after each stage, before the next one asks.

    Args:
        file: the code that is asked about; a copy installed inside another project's checkout is none of its files.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        root = Path(_git(file.parent, "rev-parse", "--show-toplevel"))
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude,glob)**/dvc.lock")
        return f"{commit}-dirty" if changed else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=True,
    )
    return done.stdout.strip()
