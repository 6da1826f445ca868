"""The folders of one server: its run folder, and one whose path is short enough for sockets."""

import hashlib
import os
import shutil
import socket
import stat
from contextlib import suppress
from pathlib import Path

from cifar.common.errors import ConfigUnusable

_INSIDE = "tmp"
_PREFIX = "cifar-"
# A socket's path has 108 bytes on Linux and 104 on macOS, one of them for the end.
_LONGEST_PATH = 103
_LONGEST_NAME = "/management.sock"  # workers' are .ts.sock.9000 and further numbers
_LINK = "log4j2.xml"
# What `cifar up`, TorchServe and Java write into a run folder.
_CONTENT = (
    _INSIDE, "logs", "torchserve.json", ".torchserve.json*", "key_file.json", "*.sock",
    "hs_err_pid*.log", "replay_pid*.log", "java_pid*.hprof",
)  # fmt: skip


def socket_folder(run_dir: Path) -> Path:
    """Return where a server's sockets lie, and what it unpacks and needs as long as it runs; it need not exist yet.

    That is a folder in the run folder, or, where its path is too long for a socket or one that Java cannot open, a
    folder with a name of its own in XDG_STATE_HOME (by default ~/.local/state). Neither is cleaned up by the system:
    /tmp, /var/tmp and ~/.cache are emptied by age, and XDG_RUNTIME_DIR goes when the user logs out.

    Raises:
        ConfigUnusable: neither will do.
    """
    run_dir = run_dir.resolve()
    candidates = (run_dir / _INSIDE, _state_home() / _own_name(run_dir))
    for folder in candidates:
        if _is_short(folder):
            return folder
    raise ConfigUnusable(
        f"No folder for sockets: {' and '.join(map(str, candidates))} are longer than "
        f"{_LONGEST_PATH - len(_LONGEST_NAME)} bytes, or hold a colon or letters outside ASCII. Give the run folder a "
        "shorter path (--run-dir), or set XDG_STATE_HOME to a folder with one"
    )


def make_socket_folder(run_dir: Path) -> Path:
    """Make that folder, empty and for this user alone; what a server that has ended left in it goes.

    Raises:
        ConfigUnusable: it cannot be made, is not this user's, or cannot hold sockets.
    """
    folder = socket_folder(run_dir)
    remove_socket_folder(folder, run_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(f"{folder}{_LONGEST_NAME}")
        Path(f"{folder}{_LONGEST_NAME}").unlink()
    except OSError as error:
        raise ConfigUnusable(
            f"{folder} cannot hold sockets: {error.strerror or error}. Put the run folder on a disk of this machine "
            "that you can write (--run-dir)"
        ) from None
    return folder


def check_socket_folder(folder: Path, run_dir: Path) -> None:
    """Reject, with ValueError, a folder that was not made for this run folder, or is not this user's."""
    run_dir = run_dir.resolve()
    made_here = folder == run_dir / _INSIDE or (folder.is_absolute() and folder.name == _own_name(run_dir))
    if not made_here or os.path.normpath(folder) != str(folder):
        raise ValueError(f"its temp_dir is {folder}; expected {run_dir / _INSIDE} or a folder {_own_name(run_dir)}")
    with suppress(FileNotFoundError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ValueError(f"its temp_dir {folder} is no folder of this user's")


def remove_socket_folder(folder: Path, run_dir: Path) -> None:
    """Remove it, where it was made for this run folder by this user; raises ConfigUnusable where it was not."""
    if folder == run_dir.resolve() / _INSIDE and not _is_made_here(run_dir):
        return
    try:
        check_socket_folder(folder, run_dir)
    except ValueError as error:
        raise ConfigUnusable(f"{folder} is not removed: {error}") from None
    shutil.rmtree(folder, ignore_errors=True)


def make_run_folder(run_dir: Path, log_config: Path) -> None:
    """Make it, with a link to TorchServe's log4j2.xml: config.properties names that relative to it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / _LINK).symlink_to(log_config)


def remove_run_folder(run_dir: Path) -> None:
    """Remove what a server made in its run folder; the folder itself stays where it holds anything else.

    Raises:
        ConfigUnusable: it holds such things and is none that `make_run_folder` made: `--run-dir` may name any folder.
    """
    link = run_dir / _LINK
    content = [path for pattern in _CONTENT for path in run_dir.glob(pattern)]
    if content and not _is_made_here(run_dir):
        raise ConfigUnusable(
            f"{run_dir} holds {content[0].name} and is no run folder of this tool; nothing was removed. Name another: "
            "--run-dir"
        )
    for path in content:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if link.is_symlink():
        link.unlink()
    with suppress(OSError):
        run_dir.rmdir()


def _is_made_here(run_dir: Path) -> bool:
    return (run_dir / _LINK).is_symlink() or (run_dir / "torchserve.json").is_file()


def _state_home() -> Path:
    named = Path(os.environ.get("XDG_STATE_HOME") or "")
    return named if named.is_absolute() else Path("~").expanduser() / ".local" / "state"


def _own_name(run_dir: Path) -> str:
    """Return a name that no other run folder has."""
    return _PREFIX + hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:16]


def _is_short(folder: Path) -> bool:
    """Whether sockets fit; Java opens names outside ASCII in some locales only, and colons separate paths."""
    path = str(folder)
    return path.isascii() and ":" not in path and len(path) + len(_LONGEST_NAME) <= _LONGEST_PATH
