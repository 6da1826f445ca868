"""Output that no encoding stops."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar.common.console import accept_any_text, print_json

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ["data", "train", "evaluate", "export", "calibrate", "register"]


@pytest.fixture
def printed(monkeypatch):
    """Print a text to a stream of an encoding; what comes out."""

    def run(text: str, encoding: str, errors: str = "strict") -> str:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors))
        accept_any_text()
        sys.stdout.write(text)
        sys.stdout.flush()
        return raw.getvalue().decode(encoding)

    return run


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("75.0% ████████░░", "75.0% ########.."),
        ("✓ ✗ –", "+ x -"),
        ("32×32 – Starting…", "32x32 - Starting..."),
        ("┏━┳┃╇", "+-+|+"),
        ("⠋ ⠙", "* *"),
        ("grün 猫 😀", "gr\\xfcn \\u732b \\U0001f600"),
        ("\udcff\udcfe.png \ud800", "\\xff\\xfe.png \\ud800"),
    ],
)
def test_what_ascii_lacks_is_drawn_or_escaped(printed, text, plain):
    assert printed(text, "ascii") == plain


def test_what_an_encoding_has_stays(printed):
    assert printed("32×32 – grün █ ✓", "cp1252") == "32×32 – grün # +"
    assert printed("█░ ✓ ×", "cp437") == "█░ + x"
    assert printed("█░ ✓ × 猫 \udcff", "utf-8") == "█░ ✓ × 猫 \\xff"


@pytest.mark.parametrize("errors", ["ignore", "replace", "xmlcharrefreplace"])
def test_what_the_person_chose_stays(printed, errors):
    expected = "75% ██".encode("ascii", errors).decode()
    assert printed("75% ██", "ascii", errors) == expected


def test_a_stream_that_cannot_be_changed_is_left(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    accept_any_text()
    monkeypatch.setattr(sys, "stdout", None)
    accept_any_text()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "utf-16"])
def test_json_survives_every_encoding(printed, monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    print_json({"file": '猫😀é\n"', "broken": ["\udcff.png"]})
    sys.stdout.flush()
    assert json.loads(raw.getvalue().decode(encoding)) == {"file": '猫😀é\n"', "broken": ["\\xff.png"]}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_shows_its_help_where_only_ascii_goes(name):
    done = subprocess.run(
        [sys.executable, "-m", f"training.{name}", "--help"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "60", "TERM": "dumb"},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"Usage" in done.stdout
    assert done.stdout.isascii()


def test_a_stage_prints_its_table_and_errors_where_only_ascii_goes(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(source: object) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "training.data", "prepare.source=folder", f"prepare.path={source}"]
        return subprocess.run([*command, "prepare.validation_fraction=0.5"], env=env, capture_output=True, timeout=60)

    done = run(tree)
    assert done.returncode == 0, done.stderr
    assert b"automobile" in done.stdout
    assert done.stdout.isascii()
    done = run("nirgendwo-grün-猫")
    assert done.returncode == 1
    assert b"DataError: nirgendwo-gr" in done.stderr
    assert b"Traceback" not in done.stderr
