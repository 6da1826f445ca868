"""Runs in MLflow.

The store is MLflow's own default, so that a plain `mlflow ui` shows it: sqlite in `mlflow.db`, files in `mlruns/`, no
server. MLFLOW_TRACKING_URI names another.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.errors import TrackingError

EXPERIMENT = "cifar"


class TrackedRun:
    """One MLflow run, begun anew or gone on with; ended as FINISHED, KILLED (stopped on purpose) or FAILED.

    Args:
        run_id: the run to go on with; None begins a new one.

    Raises:
        TrackingError: the store cannot be used, or has no such run.
    """

    def __init__(self, run_id: str | None = None) -> None:
        # MLflow reports its use over the network unless told otherwise; a reference deployment does not call home.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Importing it takes seconds, which the commands that do not track should not pay.
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # the store's creation is told step by step otherwise
        self._mlflow = mlflow
        self._status = "FINISHED"
        try:
            mlflow.set_experiment(EXPERIMENT)
            self.id: str = mlflow.start_run(run_id=run_id).info.run_id
        except mlflow.MlflowException as error:
            wanted = f"the run {run_id} cannot be resumed" if run_id else "no run can be started"
            raise TrackingError(
                f"{wanted} in MLflow's store {mlflow.get_tracking_uri()}: {error}. MLFLOW_TRACKING_URI names another "
                "store; without --resume a new run is started"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mlflow.end_run("FAILED" if kind else self._status)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, `section.key` to value."""
        self._mlflow.log_params(dict(params))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run was made of: data digest, git commit."""
        self._mlflow.set_tags(dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Record the figures of one epoch."""
        self._mlflow.log_metrics(dict(metrics), step=epoch)

    def log_file(self, path: Path) -> None:
        """Keep a copy of a file with the run."""
        self._mlflow.log_artifact(str(path))

    def mark_stopped(self) -> None:
        """Say that the run was stopped on purpose before its end."""
        self._status = "KILLED"
