"""docs/runbook.md: what it sends its reader to is there, on a server that runs."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar.common.project import ROOT
from tests.support.service import Service

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
PATHS = sorted(set(re.findall(r"\brun/[\w./-]*\w", RUNBOOK)))
PARTS = r"(?:alerts|benchmarks|docs|handler|targets)/[\w./-]*\w"
FILES = sorted(
    {*re.findall(rf"(?<![\w/]){PARTS}", RUNBOOK), *re.findall(r"\b(?:config\.properties|\w+\.xml)", RUNBOOK)}
)


@pytest.fixture(scope="module")
def run_dir(torchserve: Service) -> Iterator[Path]:
    """The run folder as `cifar up` leaves it: with a supervisor beside the server."""
    server = torchserve.server
    folders = [str(path.resolve()) for path in (server.run_dir, server.config, server.model_store)]
    # Not by spawn_supervisor, whose process outlives what started it.
    with subprocess.Popen([sys.executable, "-m", "cifar.server.supervisor", *folders], cwd=ROOT) as supervisor:
        try:
            deadline = time.monotonic() + 30
            while not (server.run_dir / "logs" / "supervisor.log").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield server.run_dir
        finally:
            supervisor.terminate()


@pytest.mark.parametrize("path", PATHS)
def test_every_path_of_the_run_folder_exists_while_the_server_runs(run_dir, path):
    assert (run_dir / path.removeprefix("run/")).exists()


def test_the_logs_that_it_describes_are_those_that_it_leads_to():
    named = {path.removeprefix("run/logs/") for path in PATHS if path.endswith(".log")}
    assert {"torchserve.log", "access_log.log", "console.log", "supervisor.log"} == named


@pytest.mark.parametrize("path", FILES)
def test_every_file_of_the_repository_that_it_names_exists(path):
    assert (ROOT / path).exists()
