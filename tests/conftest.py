"""What tests of several folders share: fixtures of tests/support, and one MLflow store for the whole session."""

import os
import warnings
from pathlib import Path

import pytest

# Folders whose tests start TorchServe, Prometheus or Alertmanager.
SERVER_FOLDERS = {"e2e", "monitoring"}
# Folders whose tests train networks, or start a process for each archive.
SLOW_FOLDERS = {"archives", "training"}

pytest_plugins = ["tests.support.fake_server", "tests.support.image_folder"]


@pytest.fixture(scope="session")
def session_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database with the experiment in it: making one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with warnings.catch_warnings():
        # MLflow's own use of SQLAlchemy, when it configures its tables for the first time.
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        client.create_experiment("cifar", artifact_location=(folder / "artifacts").as_uri())
    return folder / "mlflow.db"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, for `make test-fast`."""
    for item in items:
        if item.path.parent.name in SERVER_FOLDERS:
            item.add_marker(pytest.mark.server)
        if item.path.parent.name in SLOW_FOLDERS:
            item.add_marker(pytest.mark.slow)
