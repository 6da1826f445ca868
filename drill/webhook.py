"""The receiver of Alertmanager's notifications: it remembers when which alert came, and which still fires."""

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import orjson


@dataclass(frozen=True)
class Notification:
    """One alert of one notification.

    Attributes:
        at: when it came, seconds of time.monotonic().
        alert: its name.
        firing: whether it fires, or has ended.
        fingerprint: which one of its name.
        description: with the measured value.
    """

    at: float
    alert: str
    firing: bool
    fingerprint: str
    description: str


class Webhook:
    """An HTTP server on a free port of this machine, from `with` to its end."""

    def __init__(self) -> None:
        self.notifications: list[Notification] = []
        received = self.notifications

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                now = time.monotonic()
                document = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend(_read(alert, now) for alert in document["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the drill tells what came."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    @property
    def firing(self) -> set[str]:
        """The names of the alerts that fire, as far as anybody has been told."""
        last = {(it.alert, it.fingerprint): it.firing for it in list(self.notifications)}
        return {alert for (alert, _fingerprint), firing in last.items() if firing}

    def first(self, alert: str, since: float) -> Notification | None:
        """Return the first notification after a moment that an alert fires."""
        return next((it for it in list(self.notifications) if it.alert == alert and it.firing and it.at >= since), None)

    def fired(self, since: float) -> set[str]:
        """Return the names of all alerts of which somebody was told after a moment."""
        return {it.alert for it in list(self.notifications) if it.firing and it.at >= since}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _read(alert: dict[str, Any], now: float) -> Notification:
    labels = alert["labels"]
    firing = alert["status"] == "firing"
    return Notification(
        now, labels["alertname"], firing, alert["fingerprint"], alert["annotations"].get("description", "")
    )
