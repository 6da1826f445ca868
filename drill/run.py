"""Plays a scenario: inject a fault, wait for its alerts, recover, wait until they end; did any other alert fire?"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from drill.sandbox import Sandbox, wait_until
from drill.scenarios import Inputs, Scenario

NOTIFIED_S, CLEARED_S = 240.0, 420.0
_LINGER_S = 5.0  # with all alerts there, for one that should not come


@dataclass(frozen=True)
class Outcome:
    """The outcome of a scenario.

    Attributes:
        scenario: which.
        notified: seconds from the fault to the webhook, by alert; one that did not come is missing.
        cleared: seconds from the start of the recovery until the webhook was notified that all had ended; None: not in
            time.
        unexpected: alerts that came and should not have.
        descriptions: what the alerts said, with the measured values.
    """

    scenario: Scenario
    notified: dict[str, float]
    cleared: float | None
    unexpected: frozenset[str]
    descriptions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every alert came and ended, and no other came."""
        return self.scenario.alerts <= set(self.notified) and self.cleared is not None and not self.unexpected


def play(
    scenario: Scenario, sandbox: Sandbox, inputs: Inputs, say: Callable[[str], None], quiet_s: float = 15.0
) -> Outcome:
    """Play one scenario on a sandbox on which nothing fires.

    Args:
        scenario: which.
        sandbox: where.
        inputs: what it is made with.
        say: called with what is being waited for.
        quiet_s: seconds without a notification, after which all has ended; what was inhibited comes seconds after.
    """
    begin = time.time()
    say(scenario.title)
    with scenario.fault(sandbox, inputs) as fault:
        say(f"{scenario.title}: wait for {', '.join(sorted(scenario.alerts))}")
        wait_until(lambda: scenario.alerts <= sandbox.alerts.firing(), NOTIFIED_S)
        time.sleep(_LINGER_S)
        say(f"{scenario.title}: recover")
        recovered_at = time.time()
    say(f"{scenario.title}: wait until they end")
    ended = wait_until(lambda: _quiet_for(sandbox, quiet_s), CLEARED_S)
    first = sandbox.alerts.first(begin)
    expected = scenario.alerts | scenario.aftermath
    return Outcome(
        scenario,
        {alert: one.at - fault.since for alert, one in first.items() if alert in expected},
        sandbox.alerts.read()[-1].at - recovered_at if ended and first else None,
        frozenset(first) - expected,
        {alert: one.description for alert, one in first.items()},
    )


def _quiet_for(sandbox: Sandbox, seconds: float) -> bool:
    """Whether nothing fires and no notification has come for seconds: what was inhibited comes when another ends."""
    notifications = sandbox.alerts.read()
    last = notifications[-1].at if notifications else 0.0
    return not sandbox.alerts.firing() and time.time() - last >= seconds
