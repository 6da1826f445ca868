"""What pictures of the dashboards need to know; that they can be drawn of real data is told by tests/e2e."""

import json

import pytest

from grafana.ask import Series, substitute
from grafana.build import FOLDER
from grafana.draw_panels import DRAW, format_value


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1234, "percentunit", "12.3 %"),
        (0.0421, "s", "42.1 ms"),
        (12, "s", "12 s"),
        (14.4, "suffix: ×", "14 ×"),
        (3072, "mbytes", "3 GiB"),
        (6860, "short", "6.86 K"),
        (50, "percent", "50 %"),
        (2.5, "reqps", "2.5 req/s"),
        (2, "none", "2"),
    ],
)
def test_values_have_their_units(value, unit, text):
    assert format_value(value, unit) == text


def test_units_and_kinds_of_all_panels_can_be_drawn():
    for file in FOLDER.glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            assert panel["type"] == "row" or panel["type"] in DRAW


def test_variables_are_put_in_as_grafana_does():
    expression = 'rate(a{v=~"$version"}[$__rate_interval]) - a offset $__interval'
    assert substitute(expression, 5) == 'rate(a{v=~".*"}[20s]) - a offset 5s'
    assert substitute(expression, 60, "1.0") == 'rate(a{v=~"1.0"}[65s]) - a offset 60s'


def test_a_legend_names_a_series_by_its_labels():
    series = Series({"model_version": "1.0", "statistic": "contrast"}, [])
    assert series.name("{{statistic}} {{model_version}}") == "contrast 1.0"
    assert series.name("{{alertname}} {{model_version}}") == "1.0"
