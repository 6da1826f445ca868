"""Where what must last lies, that it fits, and that nothing else is ever removed."""

import os
import socket
import stat
from pathlib import Path

import pytest

from cifar.common.errors import ConfigUnusable
from cifar.server.run_folder import (
    check_socket_folder,
    make_run_folder,
    make_socket_folder,
    remove_run_folder,
    remove_socket_folder,
    socket_folder,
)


@pytest.fixture
def run_dir(tmp_path):
    make_run_folder(tmp_path / "run", tmp_path / "log4j2.xml")
    return tmp_path / "run"


@pytest.fixture
def state_home(tmp_path_factory, monkeypatch):
    """With a path that is short, as a home's is."""
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def deep(tmp_path):
    """A run folder whose path is too long for a socket."""
    folder = tmp_path / ("deep" * 15) / "run"
    make_run_folder(folder, tmp_path / "log4j2.xml")
    return folder


def test_a_short_run_folder_holds_it_whatever_tmpdir_says(run_dir, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/" + "long" * 30)
    folder = make_socket_folder(run_dir)
    assert folder == run_dir / "tmp"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as longest:
        longest.bind(str(folder / "management.sock"))


@pytest.mark.parametrize("name", ["deep" * 25, "größe", "a:b"])
def test_elsewhere_it_has_a_short_path_and_a_name_of_its_own(tmp_path, state_home, monkeypatch, name):
    one, other = socket_folder(tmp_path / name / "run"), socket_folder(tmp_path / name / "run2")
    assert one.parent == other.parent == state_home
    assert one != other
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(state_home))
    assert socket_folder(tmp_path / name / "run").parent == state_home / ".local" / "state"


def test_where_nothing_fits_the_error_says_so_at_once(deep, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/" + "long" * 30)
    with pytest.raises(ConfigUnusable, match=r"longer than 87 bytes.*--run-dir.*XDG_STATE_HOME"):
        make_socket_folder(deep)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(deep, state_home):
    state_home.chmod(0o500)
    with pytest.raises(ConfigUnusable, match="cannot hold sockets: Permission denied"):
        make_socket_folder(deep)


def test_what_a_server_left_there_goes_and_what_is_in_its_place_does_not(deep, state_home, tmp_path):
    folder = make_socket_folder(deep)
    (folder / "models").mkdir()
    assert list(make_socket_folder(deep).iterdir()) == []
    folder.rmdir()
    valuable = tmp_path / "valuable"
    valuable.mkdir()
    (valuable / "file").touch()
    folder.symlink_to(valuable)
    with pytest.raises(ConfigUnusable, match="no folder of this user's"):
        make_socket_folder(deep)
    assert (valuable / "file").exists()


@pytest.mark.parametrize(
    "wrong", ["", "/", "/tmp", "/tmp/cifar-ts-abc", "{run}", "{run}/tmp/../../home", "{run}/../run/tmp", "{run}/logs"]
)
def test_other_folders_are_never_removed(run_dir, wrong):
    folder = Path(wrong.format(run=run_dir))
    with pytest.raises(ValueError, match="its temp_dir is"):
        check_socket_folder(folder, run_dir)
    with pytest.raises(ConfigUnusable, match="is not removed"):
        remove_socket_folder(folder, run_dir)


def test_only_what_a_server_made_is_removed_from_a_run_folder(run_dir):
    (run_dir / "logs").mkdir()
    (run_dir / "logs" / "console.log").touch()
    (run_dir / "key_file.json").touch()
    remove_run_folder(run_dir)
    assert not run_dir.exists()
    remove_run_folder(run_dir)


def test_what_somebody_else_put_there_stays(run_dir):
    (run_dir / "logs").mkdir()
    (run_dir / "notes.txt").write_text("mine")
    remove_run_folder(run_dir)
    assert [path.name for path in run_dir.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["logs", "tmp", "key_file.json"])
def test_a_folder_that_is_no_run_folder_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").touch()
    with pytest.raises(ConfigUnusable, match=f"holds {name} and is no run folder"):
        remove_run_folder(tmp_path)
    assert (tmp_path / name / "file").exists()
