"""Files appear whole or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cifar.common.files import atomic_write

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_file_appears_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "new" / "file.json"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert (temporary.parent, temporary.suffix) == (path.parent, ".json")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_an_exception_where_there_was_no_file_leaves_none(tmp_path):
    with pytest.raises(ValueError, match="no"), atomic_write(tmp_path / "file"):
        raise ValueError("no")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_users_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_text("x")
        assert os.umask(mask) == mask  # still what the user set
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def run_with_a_full_disk(program, folder):
    """Run it with files limited to 20,000 bytes: a write beyond fails as on a full disk."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", limit + program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    done = run_with_a_full_disk(
        """
from pathlib import Path
from cifar.common.files import atomic_write
try:
    with atomic_write(Path("file")) as temporary:
        temporary.write_bytes(bytes(100_000))
except OSError as error:
    print(type(error).__name__)
""",
        tmp_path,
    )
    assert done.stdout.split() == ["OSError"], done.stderr
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_old_weights_and_an_old_export_and_is_an_os_error(tmp_path):
    for name in ("weights.pth", "model.pt"):
        (tmp_path / name).write_text("old")
    done = run_with_a_full_disk(
        """
from pathlib import Path
from cifar.archives.reference_outputs import synthetic_images
from training.export import export
from training.model import ModelParams, build_classifier
from training.weights import save_weights
classifier = build_classifier(ModelParams("SimpleCNN", filters=(4, 8), hidden_width=32)).eval()
for write in (
    lambda: save_weights(classifier.network.state_dict(), Path("weights.pth")),
    lambda: export(classifier, {}, synthetic_images(3), 1e-5, Path("model.pt")),
):
    try:
        write()
    except OSError as error:
        print(type(error).__name__)
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["OSError", "OSError"]
    assert [(tmp_path / name).read_text() for name in names(tmp_path)] == ["old", "old"]
