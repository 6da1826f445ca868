"""The copy of an archive that is checked, registered and kept."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar.common.errors import ArchiveRejected, DeploymentFailed
from cifar.common.files import open_regular
from cifar.common.project import ROOT
from cifar.deployment import staging
from cifar.deployment.staging import staged


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "built" / "cifar-1.0.mar"
    path.parent.mkdir()
    path.write_bytes(b"content")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "model_store"


def test_the_copy_lies_hidden_where_nobody_else_comes_and_goes_with_the_block(archive, store):
    archive.with_name("cifar-1.0.mar.sig").write_text("signature")
    with staged(archive, store) as copy:
        archive.write_bytes(b"other content")
        assert copy.read_bytes() == b"content"
        assert sorted(path.name for path in copy.parent.iterdir()) == ["cifar-1.0.mar", "cifar-1.0.mar.sig"]
        assert (copy.parent.parent, copy.parent.name[0]) == (store, ".")
        assert copy.parent.stat().st_mode & 0o077 == 0
    assert list(store.iterdir()) == []


def test_a_link_counts_as_the_file_that_it_leads_to(archive, store, tmp_path):
    link = tmp_path / "link.mar"
    link.symlink_to(archive)
    with staged(link, store) as copy:
        assert copy.read_bytes() == b"content"
        assert not copy.is_symlink()


def put_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "symbolic links"),
        (put_fifo, "Not a regular file"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "Not a regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
        (lambda path: os.truncate(path, 1 << 40), "expected at most 1,073,741,824"),
        (lambda path: put_fifo(path.with_name(path.name + ".sig")), r"\.sig cannot be read: Not a regular file"),
    ],
)
def test_what_is_no_file_of_a_size_that_archives_have_is_rejected(archive, store, change, told):
    change(archive)
    with pytest.raises(ArchiveRejected, match=told), staged(archive, store):
        pass
    assert list(store.iterdir()) == []


def test_a_file_that_grows_while_it_is_copied_is_given_up(archive, store, monkeypatch):
    monkeypatch.setattr(staging, "MAX_FILE", 100)
    monkeypatch.setattr(staging, "_CHUNK", 10)
    archive.write_bytes(bytes(90))
    opened = open_regular

    def grow(path, limit):
        file = opened(path, limit)
        with path.open("ab") as more:
            more.write(bytes(1000))
        return file

    monkeypatch.setattr(staging, "open_regular", grow)
    with pytest.raises(ArchiveRejected, match="has more than 100 bytes"), staged(archive, store):
        pass


def test_a_store_that_cannot_be_written_is_told(archive, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeploymentFailed, match="cannot be written"), staged(archive, tmp_path / "file" / "store"):
        pass


def test_what_a_killed_process_has_left_is_removed_and_what_a_running_one_needs_is_not(archive, store):
    code = (
        "import sys, time; from pathlib import Path; from cifar.deployment.staging import staged\n"
        "with staged(Path(sys.argv[1]), Path(sys.argv[2])) as copy:\n"
        "    print(copy, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(archive), str(store)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with staged(archive, store) as mine:
            assert theirs.exists()
        other.send_signal(signal.SIGKILL)
    assert theirs.exists()
    with staged(archive, store) as mine:
        assert list(store.iterdir()) == [mine.parent]
