"""A real HTTP server in a thread, for replies that TorchServe will not give on demand."""

import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IMAGE_BYTES = 32 * 32 * 3


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    token: str | None  # of the header Authorization
    top_k: str | None  # of the header X-Top-K
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def red_corner(request: Request) -> Reply:
    """The contract, with a model that anyone can compute: the class is the first red value, rounded, modulo ten."""
    if request.content_type == "application/octet-stream":
        values = [float(request.body[start]) for start in range(0, len(request.body), IMAGE_BYTES)]
    elif request.content_type == "application/json":
        document = json.loads(request.body)
        values = [image[0][0][0] * 255 / document["max_value"] for image in document["images"]]
    else:
        with Image.open(io.BytesIO(request.body)) as image:
            values = [float(np.asarray(image.convert("RGB"))[0, 0, 0])]
    top_k = int(request.top_k or 0)
    entries = [describe(round(value) % 10, top_k) for value in values]
    answer = entries[0] if len(entries) == 1 else {"predictions": entries}
    return Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json", "X-Model-Version": "1.0"})


def describe(index: int, top_k: int = 0) -> dict[str, object]:
    entry: dict[str, object] = {"prediction": NAMES[index], "class_index": index, "confidence": 0.75}
    if top_k:
        guesses = [NAMES[(index + step) % 10] for step in range(top_k)]
        entry["top_k"] = [{"label": name, "confidence": 0.75 / 3**step} for step, name in enumerate(guesses)]
    return entry


class FakeServer:
    """`reply` answers each request; None closes the connection without a word."""

    def __init__(self) -> None:
        self.reply: Callable[[Request], Reply | None] = red_corner
        self.requests: list[Request] = []
        self.let_go = threading.Event()  # what hangs, hangs until the test is over
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                parts = urlsplit(self.path)
                request = Request(
                    self.command,
                    parts.path,
                    parse_qs(parts.query),
                    self.headers["Authorization"],
                    self.headers["X-Top-K"],
                    self.headers["Content-Type"],
                    body,
                )
                fake.requests.append(request)
                reply = fake.reply(request)
                if reply is None:
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_PUT = do_DELETE = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply = lambda _: Reply(status, body, named)

    def answer_json(self, status: int, document: object, **headers: str) -> None:
        self.answer(status, json.dumps(document).encode(), **headers)

    def close_without_answer(self) -> None:
        self.reply = lambda _: None

    def hang_up_in_mid_answer(self) -> None:
        self.reply = lambda _: Reply(200, b'{"predic', {"Content-Length": "1000"})

    def fail_after(self, requests: int) -> None:
        """Answer that many requests, then close connections."""
        self.reply = lambda request: red_corner(request) if len(self.requests) <= requests else None

    def refuse_when(self, marks: Callable[[Request], bool], code: str, message: str) -> None:
        rejection = Reply(400, json.dumps({"error": {"code": code, "message": message}}).encode())
        self.reply = lambda request: rejection if marks(request) else red_corner(request)

    def hang(self) -> None:
        def wait(_: Request) -> None:
            self.let_go.wait(10)

        self.reply = wait

    def stop(self) -> None:
        self.let_go.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture
def closed_url():
    """An address where nothing listens any more."""
    fake = FakeServer()
    fake.stop()
    return fake.url


@pytest.fixture
def images():
    """uint8 (10, 32, 32, 3); the model of `red_corner` sees class i in image i."""
    array = np.zeros((10, 32, 32, 3), np.uint8)
    array[:, 0, 0, 0] = np.arange(10)
    return array
