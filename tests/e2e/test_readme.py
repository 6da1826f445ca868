"""The README's commands run."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import orjson
import pytest
from PIL import Image

from cifar.common.project import ROOT
from tests.support.service import BIN, run

README = (ROOT / "README.md").read_text()


def curl_commands() -> list[str]:
    """Every command of the section «Ask it» that ends in curl, with the lines that a pipe joins."""
    section = README.partition("## Ask it")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    commands = re.split(r"\n\n|(?<=predictions/cifar)\n", "\n\n".join(blocks))
    without_comments = ("\n".join(line for line in command.splitlines() if line[:1] != "#") for command in commands)
    return [command for command in without_comments if "curl" in command]


def test_readme_has_the_commands_that_are_tested():
    assert len(curl_commands()) == 3


@pytest.mark.parametrize("command", curl_commands())
def test_curl_as_in_the_readme_is_answered(torchserve, tmp_path, command):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")  # the service needs only Python and make, and so do all other tests
    Image.linear_gradient("L").save(tmp_path / "cat.png")
    done = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8080", torchserve.url)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    answer = orjson.loads(done.stdout)
    first = answer["predictions"][0] if "predictions" in answer else answer
    assert first["prediction"]


def test_the_plain_archiver_packs_the_same_files(archive, tmp_path):
    command = re.search(r"torch-model-archiver (?:.*\\\n)*.*", README)
    assert command is not None
    (tmp_path / "model_store").mkdir()
    with zipfile.ZipFile(archive) as content:
        content.extract("model.pt", tmp_path)
        expected = {name: content.read(name) for name in content.namelist() if not name.startswith("MAR-INF/")}
    plain = (
        command[0]
        .replace("artifacts/model.pt", str(tmp_path / "model.pt"))
        .replace("--export-path model_store", f"--export-path {tmp_path}/model_store")
    )
    run("bash", "-c", plain, env={"TMPDIR": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"})
    with zipfile.ZipFile(tmp_path / "model_store" / "cifar.mar") as content:
        packed = {name: content.read(name) for name in content.namelist() if not name.startswith("MAR-INF/")}
    assert packed == expected


def test_archive_holds_all_of_handler(archive):
    with zipfile.ZipFile(archive) as content:
        packed = {name for name in content.namelist() if not name.startswith("MAR-INF/")}
    own = {file.name for file in (ROOT / "handler").iterdir() if file.is_file()}
    assert packed == own - {"metrics.yaml"} | {"model.pt"}  # metrics.yaml is the server's, for all its models


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_of_the_readme_leads_to_a_file(link):
    assert Path(ROOT / link).exists()
