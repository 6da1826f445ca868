"""What screenshots of the dashboards depend on; tests/e2e draws them of real data."""

import json
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from grafana.build import FOLDER
from grafana.draw_panels import DRAW, PanelData, VersionColours, format_value
from grafana.prometheus import Series, substitute


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
    found = Series({"model_version": "1.0", "statistic": "contrast"}, [])
    assert found.name("{{statistic}} {{model_version}}") == "contrast 1.0"
    assert found.name("{{alertname}} {{model_version}}") == "1.0"


def draw_panel(title: str, answers: list[list[Series]], colours: VersionColours | None = None) -> Axes:
    """Draw a panel of the dashboards."""
    panels: list[dict[str, Any]] = [
        panel for file in FOLDER.glob("*.json") for panel in json.loads(file.read_text())["panels"]
    ]
    [panel] = [panel for panel in panels if panel["title"] == title]
    axes = Figure(dpi=100).add_subplot()
    DRAW[panel["type"]](axes, PanelData(panel, answers, 0.0, 60.0, 5, [], colours or VersionColours()))
    return axes


def series(value: float, **labels: str) -> Series:
    return Series(labels, [(0.0, value), (60.0, value)])


@pytest.mark.parametrize("mebibytes", [700, 5000, 31_000, 256_000])
def test_ticks_of_memory_are_at_round_gibibytes(mebibytes):
    axes = draw_panel("Memory", [[series(mebibytes, instance="a")], [series(1, instance="a")]])
    low, high = axes.get_ylim()
    ticks = [tick / 1024 for tick in axes.yaxis.get_major_locator()() if low <= tick <= high]
    assert len(ticks) > 2
    assert all(float(f"{tick:.2g}") == pytest.approx(tick) for tick in ticks), ticks


def test_a_version_has_one_colour_in_all_panels_whatever_else_is_in_them():
    colours = VersionColours(["1.0", "2.0"])
    both = [series(1.0, model_version="2.0"), series(2.0, model_version="1.0")]
    one = draw_panel("p99 latency by version", [both, both], colours)
    other = draw_panel("Live workers by version", [[series(1.0, model_version="2.0")]], colours)
    drawn = {line.get_label(): to_hex(line.get_color()) for axes in (one, other) for line in axes.get_lines()}
    assert drawn["2.0"] == drawn["2.0 median"] != drawn["1.0"] == drawn["1.0 median"]
    assert to_hex(other.get_lines()[0].get_color()) == drawn["2.0"] == colours.find("2.0")
