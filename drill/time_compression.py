"""Copies of the alerts and of Alertmanager's configuration in compressed time."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_RANGE = re.compile(r"\[(\d+)([smh])\]")


@dataclass(frozen=True)
class TimeCompression:
    """How time is compressed.

    Attributes:
        divisor: of every window and every `for`.
        shortest_window_s: no window becomes shorter: heartbeats come every 5 s, counts every second, and a worker needs
            its time to start, however short the windows are.
        shortest_for_s: nor does a `for`: what has ended is in the window until it has passed.
    """

    divisor: int = 20
    shortest_window_s: int = 30
    shortest_for_s: int = 30

    def window(self, seconds: int) -> int:
        """Return the shortened window."""
        return max(seconds // self.divisor, min(seconds, self.shortest_window_s))

    def pending(self, seconds: int) -> int:
        """Return the shortened `for`."""
        return max(seconds // self.divisor, min(seconds, self.shortest_for_s))


def shorten_rules(rules: dict[str, Any], compression: TimeCompression) -> dict[str, Any]:
    """Return the content of a rule file with shorter windows and `for`; names and thresholds stay."""
    return {"groups": [_shorten_group(group, compression) for group in rules["groups"]]}


def _shorten_group(group: dict[str, Any], compression: TimeCompression) -> dict[str, Any]:
    return group | {"rules": [_shorten_rule(rule, compression) for rule in group["rules"]]}


def _shorten_rule(rule: dict[str, Any], compression: TimeCompression) -> dict[str, Any]:
    def window(match: re.Match[str]) -> str:
        return f"[{compression.window(int(match[1]) * _SECONDS[match[2]])}s]"

    shortened = rule | {"expr": _RANGE.sub(window, rule["expr"])}
    if "for" in rule:
        count, unit = int(rule["for"][:-1]), rule["for"][-1]
        shortened["for"] = f"{compression.pending(count * _SECONDS[unit])}s"
    return shortened


def write_rules(source: Path, target: Path, compression: TimeCompression) -> None:
    """Write shortened copies of the rule files of a folder into another."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.yaml")):
        rules = shorten_rules(yaml.safe_load(file.read_text(encoding="utf-8")), compression)
        (target / file.name).write_text(yaml.safe_dump(rules, sort_keys=False, width=1000), encoding="utf-8")


def shorten_intervals(config: dict[str, Any], webhook: str) -> dict[str, Any]:
    """Return the content of alertmanager.yml with waits of seconds, and every webhook at another address.

    Grouping, routes and inhibition stay as they are.
    """

    def shorten(route: dict[str, Any]) -> dict[str, Any]:
        short = {"group_wait": "1s", "group_interval": "2s", "repeat_interval": "1h"}
        return route | short | ({"routes": [shorten(child) for child in route["routes"]]} if "routes" in route else {})

    receivers = [
        receiver | {"webhook_configs": [config | {"url": webhook} for config in receiver.get("webhook_configs", [])]}
        for receiver in config["receivers"]
    ]
    return config | {"route": shorten(config["route"]), "receivers": receivers}
