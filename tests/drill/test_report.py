"""docs/drill.md is of the alerts and scenarios that there are now."""

from drill.report import digest, read_digest, report
from drill.run import Outcome
from drill.scenarios import SCENARIOS
from drill.time_compression import TimeCompression
from tests.alerts.rules import ROOT, rules

# A report has none: only a page that was not written again.
OLDER = "> **Of older alerts.**"


def test_the_page_was_made_from_the_alerts_and_scenarios_of_today_or_says_at_its_top_that_it_was_not():
    page = (ROOT / "docs" / "drill.md").read_text()
    assert read_digest(page) == digest() or page.splitlines()[2].startswith(OLDER), "run: make drill"


def test_a_report_has_the_digest_of_what_it_was_made_from():
    outcome = Outcome(SCENARIOS[0], {"CifarServerDown": 3.0}, 5.0, frozenset(), {"CifarServerDown": "Down."})
    text = report([outcome], 60, 50, TimeCompression())
    assert "| Java is killed | CifarServerDown | 3 | 5 | none |" in text
    assert "- CifarServerDown: Down." in text
    assert read_digest(text) == digest()
    assert OLDER not in text


def test_every_scenario_expects_alerts_that_exist():
    alerts = {rule["alert"] for rule in rules("alert")}
    assert all(scenario.alerts | scenario.aftermath <= alerts for scenario in SCENARIOS)
