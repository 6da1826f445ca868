"""Two makes at once: one waits for the other, and what one has done the other does not do again.

What make starts is replaced by programs that take a moment and note when: installing packages takes minutes.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]

# As python or cifar: notes its begin and its end, and writes what comes of it.
STUB = f"""#!/bin/sh
case "$1" in -c) exec {sys.executable} "$@";; esac
echo "begin $(basename $0) $*" >> log
sleep 0.3
case "$2" in
training.export) mkdir -p artifacts/1.0;;
venv) mkdir -p .venv/bin; cp stub .venv/bin/python; cp stub .venv/bin/cifar; cp stub .venv/bin/pip;;
esac
case "$(basename $0) $1" in "cifar archive") echo archive > $8;; esac
echo "end $(basename $0) $*" >> log
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile with what it looks at, on a machine where nothing has been installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("cifar/archives", "training", "handler", "model_store", "training/pretrained/1.0"):
        (tmp_path / name).mkdir(parents=True)
    for source in ("cifar/archives/build.py", "training/export.py", "training/model.py"):
        (tmp_path / source).touch()
    (tmp_path / "handler" / "pixels.py").touch()
    (tmp_path / "training/pretrained/1.0/best_cnn_model.pth").touch()
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    return tmp_path


def make_together(checkout: Path, *targets: str) -> list[str]:
    """Run one make for each target at the same time; return what was run, in order, and check that it was in turn."""
    (checkout / "log").write_text("")
    running = [
        subprocess.Popen(
            ["make", target, "PYTHON=./stub"], cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for target in targets
    ]
    outputs = [make.communicate(timeout=60)[0] for make in running]
    assert [make.returncode for make in running] == [0] * len(targets), outputs
    lines = [line for line in (checkout / "log").read_text().splitlines() if line.split()[1:3] not in SERVING]
    begins, ends = lines[::2], lines[1::2]
    assert [line.removeprefix("begin ") for line in begins] == [line.removeprefix("end ") for line in ends]
    return [" ".join(line.split()[1:4]) for line in begins]


SERVING = [["cifar", "up"], ["cifar", "predict"]]
INSTALL = ["stub -m venv", "python -m pip"]
BUILD = ["python -m training.export", "cifar archive artifacts/1.0/model.pt"]


def test_two_ups_install_and_build_once(checkout):
    assert make_together(checkout, "up", "up") == INSTALL + BUILD
    assert make_together(checkout, "up", "up") == []


def test_up_beside_another_target_that_installs_more(checkout):
    done = make_together(checkout, "up", "archive", ".venv/.training")
    assert sorted(done) == sorted([*INSTALL, "python -m pip", *BUILD])


def test_a_touched_file_is_built_once_again(checkout):
    make_together(checkout, "up")
    (checkout / "handler" / "pixels.py").touch()
    assert make_together(checkout, "up", "up", "archive") == BUILD


def test_what_fails_is_tried_again_by_the_next(checkout):
    stub = checkout / "stub"
    stub.write_text(STUB.replace("sleep 0.3", 'case "$2" in pip) exit 1;; esac'))
    done = subprocess.run(["make", "up", "PYTHON=./stub"], cwd=checkout, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert not (checkout / ".venv/.serving").exists()
    (checkout / ".venv/bin/python").write_text(STUB)
    assert make_together(checkout, "up", "up") == [*INSTALL[1:], *BUILD]
