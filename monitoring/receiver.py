"""Alertmanager's messages as lines of a file: `python receiver.py 127.0.0.1:9095 alerts.jsonl`.

Each line is what Alertmanager has sent, with the time at which it came as `received`.
"""

import json
import sys
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_LONGEST = 16 * 2**20  # bytes of a message
_PATIENCE_S = 30  # for the rest of one


def serve(host: str, port: int, log: Path) -> None:
    """Append each message to a file, until the process is ended."""

    class Receiver(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            self._answer(200 if self.path == "/-/ready" else 404)

        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", ""))
                if not 0 <= length <= _LONGEST:
                    raise ValueError("too long")
                append(log, json.loads(self.rfile.read(length)))
            except (ValueError, TypeError):
                self._answer(400)
            except OSError as error:
                self.log_error("%s", error)
                self._answer(500)  # Alertmanager tries again
            else:
                self._answer(200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """The messages are the log."""

    with ThreadingHTTPServer((host, port), Receiver) as server:
        server.serve_forever()


def append(log: Path, message: dict[str, Any]) -> None:
    """Write one line at once, so that lines of several threads do not mix."""
    line = json.dumps({"received": datetime.now(UTC).isoformat(timespec="milliseconds")} | message) + "\n"
    with log.open("ab", buffering=0) as file:
        file.write(line.encode())


if __name__ == "__main__":
    address, path = sys.argv[1:]
    listen, _colon, number = address.rpartition(":")
    serve(listen, int(number), Path(path))
