"""Programs that are no packages of Python: where one is missing, its tests are skipped, but fail in CI."""

import os
import shutil

import pytest


def need(program: str) -> None:
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing: .ci/run installs it")
        pytest.skip(f"{program} is not installed: apt-get install prometheus prometheus-alertmanager")
