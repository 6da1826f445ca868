"""Which alerts Alertmanager has notified the webhook of, when, and which of them still fire."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True)
class Notification:
    """One alert of one message.

    Attributes:
        at: when the message came, seconds since 1970.
        alert: its name.
        firing: whether it fires, or has ended.
        fingerprint: which of the alerts of its name.
        description: with the measured value.
    """

    at: float
    alert: str
    firing: bool
    fingerprint: str
    description: str


class AlertLog:
    """The log of alerts that the monitor's webhook writes (cifar/monitoring/receiver.py)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Notification]:
        """Return all notifications so far, the oldest first."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:  # no notification yet
            return []
        return [notification for line in lines for notification in _read(orjson.loads(line))]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire, by the notifications so far."""
        last = {(found.alert, found.fingerprint): found.firing for found in self.read()}
        return {alert for (alert, _fingerprint), firing in last.items() if firing}

    def first(self, since: float) -> dict[str, Notification]:
        """Return, by alert, the first notification after a moment that it fires."""
        found: dict[str, Notification] = {}
        for notification in self.read():
            if notification.firing and notification.at >= since:
                found.setdefault(notification.alert, notification)
        return found


def _read(message: dict[str, Any]) -> list[Notification]:
    at = datetime.fromisoformat(message["received"]).timestamp()
    return [
        Notification(
            at,
            alert["labels"]["alertname"],
            alert["status"] == "firing",
            alert["fingerprint"],
            alert["annotations"].get("description", ""),
        )
        for alert in message["alerts"]
    ]
