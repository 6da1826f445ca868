"""Clients that send one image after the other at a steady rate; what they send can be changed meanwhile."""

import http.client
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

_TIMEOUT_S = 30.0
_BACK_OFF_S = 2.0  # after a failure, as a client should


class Traffic:
    """A number of clients, from `with` to its end.

    Args:
        url: of the inference API.
        images: (N, 32, 32, 3), sent in turn.
        clients: how many, each with one request at a time.
        rate: requests a second of all clients together, where the server is fast enough.

    Attributes:
        images: what is sent from now on.
        bad: share of requests from now on whose body no server could take, 0-1.
        answered: requests that got an answer, of whatever status.
    """

    def __init__(self, url: str, images: Images, clients: int = 8, rate: float = 50) -> None:
        self.images = images
        self.bad = 0.0
        self.answered = 0
        self._address = urlsplit(url).netloc
        self._pause_s = clients / rate
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True) for seed in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)

    def _ask(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        connection = http.client.HTTPConnection(self._address, timeout=_TIMEOUT_S)
        while not self._end.is_set():
            begin = time.monotonic()
            body = b"short" if generator.random() < self.bad else self._draw(generator)
            try:
                connection.request("POST", "/predictions/cifar", body, {"Content-Type": "application/octet-stream"})
                response = connection.getresponse()
                response.read()
                self.answered += 1
                failed = response.status >= 500
            except (OSError, http.client.HTTPException):
                connection.close()
                failed = True
            self._end.wait(_BACK_OFF_S if failed else max(0.0, begin + self._pause_s - time.monotonic()))
        connection.close()

    def _draw(self, generator: np.random.Generator) -> bytes:
        images = self.images
        body: bytes = images[generator.integers(len(images))].tobytes()
        return body
