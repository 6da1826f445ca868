"""Plays a scenario: cause, wait for its alerts, mend, wait until they end; and whether anything else came."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from drill.scenarios import Scenario, Supplies
from drill.site import Site, wait_until

TOLD_S, CLEARED_S = 240.0, 420.0
_LINGER_S = 5.0  # with all alerts there, for one that should not come


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


def play(
    scenario: Scenario, site: Site, supplies: Supplies, say: Callable[[str], None], quiet_s: float = 15.0
) -> Outcome:
    """Play one scenario on a site on which nothing fires.

    Args:
        scenario: which.
        site: where.
        supplies: what it is made with.
        say: told what is being waited for.
        quiet_s: without a word, after which all has ended; what was held back comes some seconds after its cause.
    """
    begin = time.time()
    say(scenario.title)
    with scenario.cause(site, supplies) as cause:
        say(f"{scenario.title}: wait for {', '.join(sorted(scenario.alerts))}")
        wait_until(lambda: scenario.alerts <= site.alerts.firing(), TOLD_S)
        time.sleep(_LINGER_S)
        say(f"{scenario.title}: mend it")
        mended = time.time()
    say(f"{scenario.title}: wait until they end")
    ended = wait_until(lambda: _quiet_for(site, quiet_s), CLEARED_S)
    first = site.alerts.first(begin)
    expected = scenario.alerts | scenario.aftermath
    return Outcome(
        scenario,
        {alert: it.at - cause.since for alert, it in first.items() if alert in expected},
        site.alerts.read()[-1].at - mended if ended and first else None,
        frozenset(first) - expected,
        {alert: it.description for alert, it in first.items()},
    )


def _quiet_for(site: Site, seconds: float) -> bool:
    """Tell whether nothing fires and nothing has come for so long: what was held back comes when another ends."""
    notifications = site.alerts.read()
    last = notifications[-1].at if notifications else 0.0
    return not site.alerts.firing() and time.time() - last >= seconds
