"""Alertmanager's messages as lines of a file: `python receiver.py 127.0.0.1:9095 alerts.jsonl --token-file FILE`.

Each line is what Alertmanager has sent, with the time at which it came as `received`. Any page in a browser on this
machine can reach the port, so that a message must show what no page can: the type of JSON, which a browser asks
permission for first; the address in `Host`; no `Origin`; and the token, where there is one.
"""

import argparse
import contextlib
import hmac
import itertools
import json
import socket
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_MAX_BODY = 2**20  # bytes of a message; Alertmanager's for one alert is about 1 kB
_MAX_LINE = 2 * 2**20  # bytes; what is not ASCII grows as it is written
_MAX_FILE = 8 * 2**20  # bytes, at which the log is turned over
_OLD_FILES = 3  # that are kept beside it: alerts.jsonl.1 is the newest
_CONNECTIONS = 32  # at once
_TIMEOUT_S = 10.0  # for a whole request, however slowly it comes
_LOG_EVERY_S = 60.0  # on standard error
_VERSION = "4"  # of Alertmanager's webhook messages


class Rejected(Exception):
    """A request that is not logged.

    Attributes:
        status: of the answer; the message is its body.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AlertLog:
    """The file, one message a line, and those that it was turned over into: 32 MiB in all.

    Args:
        path: of the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def append(self, message: dict[str, Any]) -> None:
        """Write one line at once; raises OSError, and Rejected for a line that is too long."""
        received = {"received": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line = json.dumps(received | message | received).encode() + b"\n"
        if len(line) > _MAX_LINE:
            raise Rejected(413, f"the message makes a line of {len(line):,} bytes; at most {_MAX_LINE:,} are logged")
        with self._lock:
            self._turn_over(len(line))
            with self._path.open("ab", buffering=0) as file:
                file.write(line)

    def _turn_over(self, coming: int) -> None:
        if not self._path.is_file() or self._path.stat().st_size + coming <= _MAX_FILE:
            return
        files = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, _OLD_FILES + 1))]
        for newer, older in reversed(list(itertools.pairwise(files))):
            if newer.exists():
                newer.replace(older)


class Server(ThreadingHTTPServer):
    """Listens for Alertmanager.

    Args:
        host, port: where; a message must name them in its Host header.
        log: what messages are appended to.
        token_file: holds the token that messages must show; None: none is asked for.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, log: AlertLog, token_file: Path | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        names = [f"[{host}]" if ":" in host else host, "localhost"]
        self.hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())
        self.log = log
        self.token_file = token_file
        self.logged_at = -_LOG_EVERY_S
        self._free = threading.BoundedSemaphore(_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Close a connection at once where there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and end the connection after a time whatever it does."""
        # A timeout of the socket is for each of its reads, and a byte now and then would satisfy it for ever.
        end = threading.Timer(_TIMEOUT_S, _disconnect, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore what goes wrong with a connection: its client has gone."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/-/ready" else 404)

    def do_POST(self) -> None:
        try:
            self._check_sender()
            self.server.log.append(parse_message(self._read_body()))
        except Rejected as rejection:
            self._answer(rejection.status, f"{rejection}\n")
        except OSError as error:
            self.log_error("%s", error)
            self._answer(500)  # Alertmanager tries again
        else:
            self._answer(200)

    def _check_sender(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise Rejected(403, f"Host is not this server's address; expected {' or '.join(sorted(self.server.hosts))}")
        if "Origin" in self.headers:
            raise Rejected(403, "the request has an Origin header: messages of web pages are not logged")
        if self.headers.get_content_type() != "application/json" or "Content-Type" not in self.headers:
            raise Rejected(415, "Content-Type is not application/json, as which Alertmanager sends its messages")
        if self.server.token_file is None:
            return
        try:
            expected = self.server.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            expected = ""
        shown = self.headers.get("Authorization", "").encode()
        if not expected or not hmac.compare_digest(shown, f"Bearer {expected}".encode()):
            raise Rejected(401, "Authorization shows no valid token: see credentials_file in alertmanager.yml")

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise Rejected(411, "the request needs a Content-Length, and its body must not be chunked")
        if len(length) > 9 or int(length) > _MAX_BODY:
            raise Rejected(413, f"the message has {length[:20]} bytes; at most {_MAX_BODY} are logged")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise Rejected(400, f"the message ended after {len(body)} of {length} bytes")
        return body

    def _answer(self, status: int, text: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The messages are the log."""

    def log_message(self, format: str, *args: Any) -> None:
        """Write one line a minute of what is wrong: clients decide how often it is."""
        now = time.monotonic()
        if now - self.server.logged_at >= _LOG_EVERY_S:
            self.server.logged_at = now
            super().log_message("%s", (format % args)[:200])


def parse_message(body: bytes) -> dict[str, Any]:
    """Return a message of Alertmanager's; raises Rejected for anything else."""
    try:
        message = json.loads(body)
        # What Python reads and others do not: NaN, and halves of surrogate pairs.
        json.dumps(message, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Rejected(400, "the body is not JSON, or nested too deeply") from None
    problem = _find_problem(message)
    if problem is not None:
        raise Rejected(400, f"the body is not a message of Alertmanager's: {problem}")
    return dict(message)


def _find_problem(message: Any) -> str | None:
    if not isinstance(message, dict) or message.get("version") != _VERSION:
        return f'expected an object with "version": "{_VERSION}"'
    if message.get("status") not in ("firing", "resolved"):
        return "status must be firing or resolved"
    alerts = message.get("alerts")
    if not isinstance(alerts, list) or not alerts:
        return "alerts must be a list that is not empty"
    return next((problem for problem in map(_find_problem_of_alert, alerts) if problem is not None), None)


def _find_problem_of_alert(alert: Any) -> str | None:
    if not isinstance(alert, dict) or alert.get("status") not in ("firing", "resolved"):
        return "the status of each alert must be firing or resolved"
    if not _is_text(alert.get("labels")) or not _is_text(alert.get("annotations")):
        return "labels and annotations of each alert must be text"
    if "alertname" not in alert["labels"] or not isinstance(alert.get("fingerprint"), str):
        return "each alert must have an alertname and a fingerprint"
    return None


def _is_text(labels: Any) -> bool:
    return isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values())


def _disconnect(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has gone already
        connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="Write Alertmanager's messages to a file, one a line.")
    parser.add_argument("address", help="HOST:PORT to listen on")
    parser.add_argument("log", type=Path)
    parser.add_argument("--token-file", type=Path, help="holds the token that messages must show; none: any may write")
    arguments = parser.parse_args()
    host, _colon, port = arguments.address.rpartition(":")
    with Server(host.strip("[]"), int(port), AlertLog(arguments.log), arguments.token_file) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
