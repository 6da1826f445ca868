"""Clients that ask a server without a pause, and remember of every request when it was sent and who answered."""

import http.client
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import orjson

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        sent, answered: seconds of time.monotonic().
        status: of the answer; 0 where none came.
        version: X-Model-Version.
        problem: what was wrong with it; empty where nothing was.
    """

    sent: float
    answered: float
    status: int
    version: str
    problem: str


@dataclass
class SteadyLoad:
    """So many clients, each with a connection of its own and one request at a time, from `with` to its end.

    Attributes:
        url: of the inference API.
        clients: how many.
        body: raw bytes of one image.
        asked: every request so far; appended to by all clients.
    """

    url: str
    clients: int
    body: bytes = bytes(3072)
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)

    @property
    def failures(self) -> list[Asked]:
        """Requests that were not answered with a prediction and the version that made it."""
        return [asked for asked in self.asked if asked.problem]

    def versions(self, begin: float = 0.0, end: float = float("inf")) -> set[str]:
        """Return the versions of the answers that came between two moments."""
        return {asked.version for asked in self.asked if begin <= asked.answered < end}

    def _ask(self) -> None:
        connection = self._connect()
        headers = {"Content-Type": "application/octet-stream"}
        while not self._end.is_set():
            sent = time.monotonic()
            try:
                connection.request("POST", "/predictions/cifar", self.body, headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.asked.append(Asked(sent, time.monotonic(), 0, "", repr(error)))
                connection.close()
                connection = self._connect()
                time.sleep(0.1)
                continue
            version = response.headers.get("X-Model-Version", "")
            problem = _find_problem(response.status, version, content)
            self.asked.append(Asked(sent, time.monotonic(), response.status, version, problem))
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)


def _find_problem(status: int, version: str, content: bytes) -> str:
    try:
        prediction = orjson.loads(content)["prediction"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        prediction = None
    if status == 200 and version and prediction:
        return ""
    return f"{status}, version {version or 'unknown'}: {content[:200]!r}"
