"""One HTTP connection to a TorchServe: what every client of it needs, whichever of its APIs it talks to."""

import http.client
import socket
from types import TracebackType
from typing import Any, Self

import orjson
import requests

from cifar.client.sessions import open_session
from cifar.client.tokens import Tokens, variable
from cifar.common.errors import ServerUnreachable, TokenRejected
from cifar.common.urls import check_url

DEFAULT_TIMEOUT_S = 30.0
_ATTEMPTS = 3  # with a token; two clients that renew it at the same time each make the other's invalid


class Connection:
    """Sends requests, and turns every way of getting no answer into ServerUnreachable.

    Args:
        url: the base URL, such as http://127.0.0.1:8080, or `unix:` and the path of a Unix socket.
        tokens: what to show a server that asks for it.
        timeout_s: bounds the wait for a connection, and each wait for data; every request has it for itself.
    """

    def __init__(self, url: str, tokens: Tokens, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.url = check_url(url)
        self.timeout_s = timeout_s
        self._tokens = tokens
        self._session, self._base = open_session(self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        query: dict[str, Any] | None = None,
    ) -> requests.Response:
        """Send one request and return the answer, whatever its status.

        Raises:
            ServerUnreachable: refused, timed out, or closed before the answer was complete.
            TokenRejected: the server asks for a token, and no valid one is known.
        """
        for _ in range(_ATTEMPTS):
            response = self._send(method, path, body, (headers or {}) | self._tokens.headers, query)
            if not _rejects_token(response):
                return response
            if not self._tokens.renew():
                break
        raise TokenRejected(self.url, variable(self._tokens.kind))

    def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], query: dict[str, Any] | None
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self._base + path,
                data=body,
                headers={"Accept": "application/json"} | headers,
                params=query,
                timeout=self.timeout_s,
                allow_redirects=False,  # requests would follow with a GET, without the body
            )
        except requests.Timeout as error:
            raise ServerUnreachable(self.url, f"nothing came within {self.timeout_s:g} s") from error
        except requests.RequestException as error:
            raise ServerUnreachable(self.url, _say_why(error)) from error


def read_json(response: requests.Response) -> Any:
    """Return the parsed body; None where it is no JSON."""
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None


def excerpt(body: bytes, length: int = 200) -> str:
    """Return the beginning of a body as one printable line."""
    words = body[: 4 * length].decode("utf-8", "replace").split()
    line = "".join(character for character in " ".join(words) if character.isprintable())
    return line if len(line) <= length else line[: length - 1] + "…"


def _rejects_token(response: requests.Response) -> bool:
    document = read_json(response) if response.status_code == 400 else None
    return isinstance(document, dict) and document.get("type") == "InvalidKeyException"


def _say_why(error: BaseException) -> str:
    """Dig the cause out of the layers that requests and urllib3 wrap around it."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ConnectionRefusedError() | FileNotFoundError():  # no file: a Unix socket, which goes with its server
                return "nothing listens there"
            case PermissionError():
                return "only the owner of that socket may connect to it, and this is another user"
            case socket.gaierror():
                return "the host name is unknown"
            case ConnectionResetError() | BrokenPipeError() | http.client.IncompleteRead():
                return "it closed the connection before its answer was complete; its log may say why (logs/)"
        cause = cause.__cause__ or cause.__context__
    return str(error)
