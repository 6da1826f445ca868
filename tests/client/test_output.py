"""The command's output where the encoding cannot carry it: real processes, with the environment of odd machines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

CIFAR = Path(sys.executable).with_name("cifar")
MACHINES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin1": {"PYTHONIOENCODING": "latin-1"},
    "windows": {"PYTHONIOENCODING": "cp1252"},
    "oem": {"PYTHONIOENCODING": "cp437:strict"},
    "posix": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "lang-c": {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


SOME = pytest.mark.parametrize("machine", ["ascii", "posix", "windows"])
POSIX = pytest.mark.parametrize("machine", ["posix"])


@pytest.fixture
def run(machine):
    """Run `cifar` on a machine of MACHINES; its output as bytes."""

    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
        given = [item if isinstance(item, bytes) else str(item).encode() for item in arguments]
        env = kept | {"COLUMNS": "160"} | MACHINES[machine] | more
        return subprocess.run([os.fsencode(CIFAR), *given], env=env, capture_output=True, timeout=60)

    return run


@pytest.fixture
def folder(tmp_path, images):
    """Names that are German, Japanese, and no UTF-8 at all."""
    for index, name in enumerate(("grün.png".encode(), "猫😀.png".encode(), b"\xff\xfe.png")):
        Image.fromarray(images[index + 3]).save(os.path.join(os.fsencode(tmp_path), name), "PNG")  # noqa: PTH118
    return tmp_path


def check(done: subprocess.CompletedProcess[bytes], code: int = 0) -> str:
    assert done.returncode == code, done.stderr.decode("utf-8", "replace")
    for text in (done.stdout, done.stderr):
        assert b"Traceback" not in text
        assert b"UnicodeEncodeError" not in text
    return done.stdout.decode("utf-8", "replace")


@pytest.mark.parametrize("machine", MACHINES)
def test_predict_draws_its_table_in_what_the_encoding_has(run, machine, server):
    output = check(run("predict", "--url", server.url, "--samples", "drawn"))
    assert "10 of 10 predicted" in output
    assert ("75.0% ########.." in output) is (machine != "oem")  # which has bars


@SOME
def test_names_of_any_bytes_are_shown_and_predicted(run, folder, server):
    output = check(run("predict", "--url", server.url, folder))
    assert "3 of 3 predicted" in output
    assert output.count(".png") == 3


@POSIX
def test_a_file_named_on_the_command_line_may_have_any_bytes(run, folder, server):
    output = check(run("predict", "--url", server.url, os.path.join(os.fsencode(folder), b"\xff\xfe.png")))  # noqa: PTH118
    assert "1 of 1 predicted" in output


@SOME
def test_json_is_json_whatever_the_encoding(run, folder, server):
    done = run("predict", "--json", "--url", server.url, folder)
    check(done)
    answer = json.loads(done.stdout)
    names = {entry["file"].rpartition("/")[2] for entry in answer["predictions"]}
    assert len(names) == 3
    assert [entry["confidence"] for entry in answer["predictions"]] == [0.75] * 3


def test_json_keeps_names_that_are_utf_8(folder, server):
    for encoding in ("utf-8", "ascii", "cp1252"):
        done = subprocess.run(
            [CIFAR, "predict", "--json", "--url", server.url, folder],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=60,
        )
        names = {entry["file"].rpartition("/")[2] for entry in json.loads(done.stdout)["predictions"]}
        assert names == {"grün.png", "猫😀.png", "\\xff\\xfe.png"}


@SOME
def test_errors_come_as_one_line(run, folder, closed_url):
    done = run("predict", "--url", closed_url, folder)
    check(done, 1)
    assert done.stderr.count(b"\n") == 1
    check(run("predict", folder / "没有.png", "--url", closed_url), 1)


@POSIX
@pytest.mark.parametrize("command", ["up", "deploy", "status", "trace"])
def test_help_is_shown(run, command):
    assert "Usage" in check(run(command, "--help", COLUMNS="80"))


@POSIX
def test_status_and_trace_of_nothing_are_one_line(run, tmp_path, closed_url):
    for arguments in (
        ["status", "--management-url", closed_url],
        ["trace", "--version", "猫", "--model-store", tmp_path],
    ):
        done = run(*arguments)
        check(done, 1)
        assert len(done.stderr.splitlines()) == 1


@POSIX
@pytest.mark.parametrize(
    "terminal", [{"COLUMNS": "20"}, {"COLUMNS": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}]
)
def test_terminals_of_all_kinds(run, tmp_path, server, terminal):
    np.save(tmp_path / "many.npy", np.zeros((60, 32, 32, 3), np.uint8))  # enough for a bar
    check(run("predict", "--url", server.url, tmp_path, **terminal))
