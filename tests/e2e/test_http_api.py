"""docs/http-api.md: every example is run, and answers as it says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from cifar.common.project import ROOT

PAGE = (ROOT / "docs" / "http-api.md").read_text()
PREPARE = PAGE.partition("```bash\n")[2].partition("```")[0]
EXAMPLES = re.findall(r"```bash\n([^`]*?)```\n\n```json\n(.*?)```", PAGE, re.DOTALL)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The folder with the files that the page has its reader make."""
    folder: Path = tmp_path_factory.mktemp("examples")
    command = PREPARE.replace(".venv/bin/python", sys.executable)
    subprocess.run(["bash", "-ec", command], cwd=folder, check=True, timeout=60)
    return folder


def shape_of(document: Any) -> Any:
    """What an answer is made of: keys, lengths and types; the numbers and labels depend on the weights."""
    if isinstance(document, dict):
        fixed = {"name", "datatype", "shape", "model_name", "model_version", "id", "max_value"}
        return {key: value if key in fixed else shape_of(value) for key, value in document.items()}
    if isinstance(document, list):
        return [shape_of(value) for value in document]
    return type(document).__name__


def test_every_curl_of_the_page_is_an_example_with_its_answer():
    described = 1  # the description of the model is too long to stand on the page
    assert len(EXAMPLES) == PAGE.count("curl -s") - described >= 15


@pytest.mark.parametrize(("command", "answer"), EXAMPLES, ids=[command.strip()[:100] for command, _ in EXAMPLES])
def test_example_is_answered_as_the_page_says(torchserve, files, command, answer):
    command = command.replace("http://127.0.0.1:8080", torchserve.url)
    done = subprocess.run(["bash", "-c", command], cwd=files, capture_output=True, timeout=60)
    got, said = orjson.loads(done.stdout), orjson.loads(answer)
    if "prediction" in answer or "outputs" in answer:
        assert shape_of(got) == shape_of(said)
    else:
        assert got == said
