"""The table of a drill, for docs/drill.md."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.machine import processor
from drill.run import Outcome
from drill.shortening import Shortening

_INTRODUCTION = """\
# The drill

`make drill` starts a TorchServe, a Prometheus and an Alertmanager of its own, sends clean test images all the time,
breaks the service in one way after the other, and listens at the end of the line: the webhook that Alertmanager calls.
Every alert that should come must come, no other may, and all must end once it is mended; else the drill fails.

{machine}, {today}, {rate:g} requests a second. Before the first cause, {quiet_s:.0f} s of clean traffic brought no
alert.

| cause | alert | seconds to the webhook | seconds to the end of all, from the start of mending | anything else |
|---|---|---:|---:|---|
"""

_EXPLANATION = """
Time runs faster in it: windows and `for` of alerts/ are divided by {it.divisor}, but no window becomes shorter than
{it.shortest_window_s} s and no `for` shorter than {it.shortest_for_s} s, as heartbeats come every 5 s and a worker
needs its seconds to start. Prometheus looks every second, Alertmanager waits one. Thresholds, grouping and inhibition
are the real ones. With the real windows the same alerts come later, by `for` and by the part of the window that must
fill up; for those of the drift, drift.md in [benchmarks/results](../benchmarks/results) has the minutes.

What Alertmanager inhibits is part of it: a dead server brings CifarServerDown alone, and a fast burn of a budget
silences the slow one, which comes when the fast one ends.

## What the alerts said

Windows that they name are the real ones.

"""


def report(outcomes: Sequence[Outcome], quiet_s: float, rate: float, shortening: Shortening) -> str:
    """Return docs/drill.md.

    Args:
        outcomes: of all scenarios.
        quiet_s: seconds of clean traffic before them, in which no alert came.
        rate: requests a second.
        shortening: of the alerts.
    """
    machine, today = f"{os.cpu_count()} × {processor()}", f"{datetime.now(UTC):%Y-%m-%d}"
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    said = [f"- {alert}: {text}" for it in outcomes for alert, text in sorted(it.descriptions.items())]
    return (
        _INTRODUCTION.format(machine=machine, today=today, rate=rate, quiet_s=quiet_s)
        + "\n".join(rows)
        + "\n"
        + _EXPLANATION.format(it=shortening)
        + "\n".join(said)
        + "\n"
    )


def _rows(outcome: Outcome) -> list[str]:
    cleared = "–" if outcome.cleared is None else f"{outcome.cleared:.0f}"
    others = ", ".join(sorted(outcome.unexpected)) or "none"
    rows: list[str] = []
    for alert in [*sorted(outcome.scenario.alerts), *sorted(outcome.scenario.aftermath & set(outcome.told))]:
        told = f"{outcome.told[alert]:.0f}" if alert in outcome.told else "–"
        whole = ("", "", "") if rows else (outcome.scenario.title, cleared, others)
        rows.append(f"| {whole[0]} | {alert} | {told} | {whole[1]} | {whole[2]} |")
    return rows
