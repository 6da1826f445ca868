"""Plays a scenario: cause, wait for its alerts, mend, wait until they end; and whether anything else came."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from drill.scenarios import Scenario, Supplies
from drill.site import Site, wait_until

TOLD_S, CLEARED_S = 240.0, 420.0
_LINGER_S = 5.0  # with all alerts there, for one that should not come
_AFTERWARDS_S = 15.0


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        scenario: which.
        told: seconds from the cause to the webhook, by alert; one that did not come is missing.
        cleared: seconds from the start of mending until the webhook knew that all had ended; None: not in time.
        unexpected: alerts that came and should not have.
        descriptions: what the alerts said, with the measured values.
    """

    scenario: Scenario
    told: dict[str, float]
    cleared: float | None
    unexpected: frozenset[str]
    descriptions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every alert came and ended, and no other came."""
        return self.scenario.alerts <= set(self.told) and self.cleared is not None and not self.unexpected


def play(scenario: Scenario, site: Site, supplies: Supplies, say: Callable[[str], None]) -> Outcome:
    """Play one scenario on a site on which nothing fires.

    Args:
        scenario: which.
        site: where.
        supplies: what it is made with.
        say: told what is being waited for.
    """
    begin = time.monotonic()
    say(scenario.title)
    with scenario.cause(site, supplies) as cause:
        say(f"{scenario.title}: wait for {', '.join(sorted(scenario.alerts))}")
        wait_until(lambda: scenario.alerts <= site.webhook.firing, TOLD_S)
        time.sleep(_LINGER_S)
        say(f"{scenario.title}: mend it")
        mended = time.monotonic()
    say(f"{scenario.title}: wait until they end")
    ended = wait_until(lambda: _quiet_for(site, _AFTERWARDS_S), CLEARED_S)
    first = {alert: site.webhook.first(alert, begin) for alert in site.webhook.fired(begin)}
    expected = scenario.alerts | scenario.aftermath
    return Outcome(
        scenario,
        {alert: it.at - cause.since for alert, it in first.items() if it and alert in expected},
        site.webhook.notifications[-1].at - mended if ended and first else None,
        frozenset(first) - expected,
        {alert: it.description for alert, it in first.items() if it},
    )


def _quiet_for(site: Site, seconds: float) -> bool:
    """Tell whether nothing fires and nothing has come for so long: what was held back comes when another ends."""
    notifications = site.webhook.notifications
    last = notifications[-1].at if notifications else 0.0
    return not site.webhook.firing and time.monotonic() - last >= seconds
