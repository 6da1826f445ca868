"""Opens requests' sessions to servers, whether they listen on TCP or on a Unix socket."""

import os
import socket
import weakref
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from cifar.common.urls import find_socket, is_loopback

# A Unix socket's address holds 108 bytes with the closing zero.
MAX_SOCKET_PATH_BYTES = 107

_BASE = "http://localhost"  # over a Unix socket, a host is for the header only


def open_session(url: str) -> tuple[requests.Session, str]:
    """Return a session, and the base URL that its requests begin with.

    Args:
        url: as of `check_url`: http://, https://, or `unix:` and the path of a socket.
    """
    session = requests.Session()
    # requests would send even 127.0.0.1 through the proxy that the environment names, which cannot reach it.
    session.trust_env = not is_loopback(url)
    path = find_socket(url)
    if path is None:
        return session, url
    session.mount(_BASE, _UnixAdapter(_shorten(path, session)))
    return session, _BASE


class _UnixConnection(HTTPConnection):
    path: Path

    def _new_conn(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(self.timeout)  # requests gives each connection its own
            connection.connect(str(self.path))
        except OSError as error:
            connection.close()
            raise NewConnectionError(self, str(error)) from error
        return connection


class _UnixPool(HTTPConnectionPool):
    ConnectionCls = _UnixConnection

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> Any:
        connection = super()._new_conn()
        connection.path = self._path  # type: ignore[attr-defined]
        return connection


class _UnixAdapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pool = _UnixPool(path)

    def get_connection_with_tls_context(self, *_request: Any, **_tls: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


def _shorten(path: Path, session: requests.Session) -> Path:
    """Name a socket whose path is too long by its open folder, for as long as the session lives."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return path  # nothing listens there either
    weakref.finalize(session, os.close, folder)
    return Path(f"/proc/self/fd/{folder}") / path.name
