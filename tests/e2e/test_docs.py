"""What the pages show works: their requests are answered, and the plain archiver packs what ours does."""

import os
import re
import shutil
import subprocess
import zipfile

import orjson
import pytest
from PIL import Image

from cifar.common.project import ROOT
from tests.support.pages import blocks, find_pages, name
from tests.support.service import BIN, run

PLAIN_TOOLS = (ROOT / "docs" / "plain-tools.md").read_text()
EXAMPLES = ROOT / "docs" / "http-api.md"  # test_http_api.py


def curl_commands() -> list[tuple[str, str]]:
    """Every command that asks for a prediction, with the page that it is on and the lines that a pipe joins."""
    pages = [page for page in find_pages() if page != EXAMPLES]
    whole = [(name(page), text) for page in pages for block in blocks(page) for text in re.split(r"\n\n", block)]
    found = [(page, part) for page, text in whole for part in re.split(r"(?<=predictions/cifar)\n", text)]
    return [(page, re.sub(r"^#.*\n", "", part, flags=re.MULTILINE)) for page, part in found if ":8080/pred" in part]


def test_the_pages_have_the_commands_that_are_tested():
    assert sorted(page for page, _ in curl_commands()) == ["README.md"] + ["docs/plain-tools.md"] * 3


@pytest.mark.parametrize(("page", "command"), curl_commands(), ids=lambda text: text.strip()[:60])
def test_curl_as_on_a_page_is_answered(torchserve, tmp_path, page, command):
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


def test_the_management_socket_answers_as_on_a_page(torchserve):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = re.search(r"^curl --unix-socket .*$", PLAIN_TOOLS, re.MULTILINE)
    assert command is not None
    scheme, _, socket = torchserve.management_url.partition(":")
    assert scheme == "unix"
    answer = orjson.loads(run("bash", "-c", command[0].replace("management.sock", socket)))
    assert [model["modelName"] for model in answer["models"]] == ["cifar"]


def test_the_readme_shows_an_answer_as_the_server_gives_it(torchserve, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "cat.png")
    [shown] = blocks(ROOT / "README.md", "json")
    answer = torchserve.post((tmp_path / "cat.png").read_bytes(), None).json()
    assert {key: type(value) for key, value in orjson.loads(shown).items()} == {
        key: type(value) for key, value in answer.items()
    }


def test_the_plain_archiver_packs_the_same_files(archive, tmp_path):
    command = re.search(r"torch-model-archiver (?:.*\\\n)*.*", PLAIN_TOOLS)
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
