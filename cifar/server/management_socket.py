"""The Unix socket of the management API: free before a start, and short enough for the server to bind."""

import os
import re
import socket
from pathlib import Path

from cifar.client.sessions import MAX_SOCKET_PATH_BYTES
from cifar.common.errors import PortTaken


def check_socket_free(path: Path) -> None:
    """Remove a socket that a killed server has left; raises PortTaken where a server listens, or it is no socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise PortTaken(f"{path} (management_address) is no socket; move it away, or name another path there")
    if _answers(path):
        raise PortTaken(
            f"{path} (management_address) is held by a server that runs; stop it (`make down` if it is a TorchServe of "
            "this checkout), or name another path there"
        )
    path.unlink()


def remove_socket(path: Path) -> None:
    """Remove what a server of this user that was killed has left; one on which another server listens stays."""
    if path.is_socket() and path.stat().st_uid == os.getuid() and not _answers(path):
        path.unlink()


def write_server_config(config: Path, path: Path | None, folder: Path) -> Path:
    """Return the configuration for a server to start with: a socket with a long path gets a short name in it.

    Args:
        config: config.properties.
        path: of the socket; None: there is none.
        folder: which lasts as long as the server, with a short path; gets the configuration where one is written.
    """
    if path is None or len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return config
    link = folder / "m"
    link.symlink_to(path.parent)
    text = config.read_text(encoding="utf-8")
    short = folder / "config.properties"
    line = f"management_address=unix:{link / path.name}"
    short.write_text(re.sub(r"(?m)^\s*management_address\s*=.*$", line, text), encoding="utf-8")
    return short


def _answers(path: Path) -> bool:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            long = len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES
            probe.connect(f"/proc/self/fd/{folder}/{path.name}" if long else str(path))
    except TimeoutError:
        return True  # a server that is busy
    except OSError:
        return False
    finally:
        os.close(folder)
    return True
