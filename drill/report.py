"""The table of a drill, for docs/drill.md."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import yaml

from benchmarks.machine import processor
from cifar.common.project import ROOT
from drill.run import Outcome
from drill.scenarios import SCENARIOS
from drill.time_compression import TimeCompression

_INTRODUCTION = """\
# The drill

`make drill` starts a TorchServe, a Prometheus and an Alertmanager of its own, sends clean test images all the time,
injects one fault after the other, and listens at the webhook that Alertmanager calls. Every expected alert must fire,
no other may, and all must end after the recovery; else the drill fails.

{machine}, {today}, {rate:g} requests a second. Before the first fault, {quiet_s:.0f} s of clean traffic fired no
alert.

| fault | alert | seconds to the webhook | seconds from the start of the recovery to the end of all | other alerts |
|---|---|---:|---:|---|
"""

_EXPLANATION = """
Time is compressed: windows and `for` of alerts/ are divided by {time.divisor}, but no window becomes shorter than
{time.shortest_window_s} s and no `for` shorter than {time.shortest_for_s} s, as heartbeats come every 5 s and a worker
needs its seconds to start. Prometheus scrapes every second, Alertmanager waits one. Thresholds, grouping and inhibition
are the real ones. With the real windows the same alerts come later, by `for` and by the part of the window that must
fill up; for those of the drift, drift.md in [benchmarks/results](../benchmarks/results) has the minutes.

What Alertmanager inhibits is part of it: a dead server brings CifarServerDown alone, and a fast burn of a budget
silences the slow one, which comes when the fast one ends.

## What the alerts said

Windows that they name are those of alerts/, not the compressed ones.

"""


_DIGEST = "Of alerts and scenarios with this SHA-256:"


def digest() -> str:
    """Return the SHA-256 of all that a report depends on: rules without comments and links, inhibition, scenarios."""
    groups = [
        group
        for file in sorted((ROOT / "alerts").glob("*.yaml"))
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    ]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        rule.get("annotations", {}).pop("runbook_url", None)
    alertmanager = yaml.safe_load((ROOT / "alertmanager.yml").read_text(encoding="utf-8"))
    scenarios = [[one.name, one.title, sorted(one.alerts), sorted(one.aftermath)] for one in SCENARIOS]
    content = {"rules": rules, "inhibition": alertmanager["inhibit_rules"], "scenarios": scenarios}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_digest(page: str) -> str | None:
    """Return the digest in a report."""
    found = re.search(rf"<!-- {_DIGEST} ([0-9a-f]{{64}}) -->", page)
    return found[1] if found else None


def report(outcomes: Sequence[Outcome], quiet_s: float, rate: float, compression: TimeCompression) -> str:
    """Return docs/drill.md.

    Args:
        outcomes: of all scenarios.
        quiet_s: seconds of clean traffic before them, in which no alert came.
        rate: requests a second.
        compression: of the alerts.
    """
    machine, today = f"{os.cpu_count()} × {processor()}", f"{datetime.now(UTC):%Y-%m-%d}"
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    said = [f"- {alert}: {text}" for outcome in outcomes for alert, text in sorted(outcome.descriptions.items())]
    return (
        _INTRODUCTION.format(machine=machine, today=today, rate=rate, quiet_s=quiet_s)
        + "\n".join(rows)
        + "\n"
        + _EXPLANATION.format(time=compression)
        + "\n".join(said)
        + f"\n\n<!-- {_DIGEST} {digest()} -->\n"
    )


def _rows(outcome: Outcome) -> list[str]:
    cleared = "–" if outcome.cleared is None else f"{outcome.cleared:.0f}"
    others = ", ".join(sorted(outcome.unexpected)) or "none"
    rows: list[str] = []
    for alert in [*sorted(outcome.scenario.alerts), *sorted(outcome.scenario.aftermath & set(outcome.notified))]:
        notified = f"{outcome.notified[alert]:.0f}" if alert in outcome.notified else "–"
        whole = ("", "", "") if rows else (outcome.scenario.title, cleared, others)
        rows.append(f"| {whole[0]} | {alert} | {notified} | {whole[1]} | {whole[2]} |")
    return rows
