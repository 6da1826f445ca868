"""The kinds of panel that the dashboards are made of, by Grafana's own SDK."""

from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import barchart, common, dashboard, prometheus, statetimeline
from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries as lines
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    FieldTextAlignment,
    GraphGradientMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef("prometheus", "cifar-prometheus")

GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
BLUE, PURPLE, GREY = "blue", "purple", "#8e8e8e"
# For panels that show a name only: the value does not colour it.
PLAIN = ((None, BLUE),)

BY_VERSION = "{{model_version}}"

Steps = tuple[tuple[float | None, str], ...]
States = dict[int, tuple[str, str]]  # value: what to show for it, and its colour


@dataclass(frozen=True)
class Query:
    """A query of a panel.

    Attributes:
        expr: PromQL.
        legend: a name for each of its series, with labels as {{label}}. Where it is {{model_version}} alone, a
            version has the same colour in all panels.
        role: a threshold is drawn as a dashed red line, a baseline as a dashed grey one, what is secondary to another
            query as a dotted line.
    """

    expr: str
    legend: str
    role: Literal["measured", "secondary", "threshold", "baseline"] = "measured"


def timeseries(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    from_zero: bool = True,
) -> Builder[Panel]:
    """Lines over time, from zero or where it matters how near they are; stacked: areas that fill the panel."""
    panel = _frame(lines.Panel(), title, description, unit, queries, width)
    panel.line_width(2).fill_opacity(80 if stacked else 8 if from_zero else 0).show_points(VisibilityMode.NEVER)
    if from_zero:
        panel.axis_soft_min(0)
    by_version = any(query.legend == BY_VERSION for query in queries)
    palette = FieldColorModeId.PALETTE_CLASSIC_BY_NAME if by_version else FieldColorModeId.PALETTE_CLASSIC
    panel.color_scheme(dashboard.FieldColor().mode(palette))
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    panel.legend(_legend())
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A")).max(1)
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        if query.role != "measured":
            panel.override_by_query(ref, _line_overrides(query.role))
    return panel


def _line_overrides(role: str) -> list[DynamicConfigValue]:
    style = {"fill": "dot", "dash": [2, 6]} if role == "secondary" else {"fill": "dash", "dash": [8, 6]}
    overrides = [
        DynamicConfigValue("custom.lineStyle", style),
        DynamicConfigValue("custom.fillOpacity", 0),
    ]
    if role != "secondary":
        colour = {"mode": "fixed", "fixedColor": RED if role == "threshold" else GREY}
        overrides.insert(0, DynamicConfigValue("color", colour))
    return overrides


def stat(
    title: str,
    description: str,
    unit: str,
    query: Query,
    steps: Steps,
    *,
    states: States | None = None,
    names: bool = False,
) -> Builder[Panel]:
    """The value now, coloured by the highest of `steps` that it reaches; names: the series' names instead of it.

    Over time, a version that was undeployed an hour ago would be shown with its last value.
    """
    panel = _frame(stats.Panel(), title, description, unit, (query,), 4, instant=True).height(4)
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    panel.thresholds(
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value, colour) for value, colour in steps])
    )
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    panel.color_mode(BigValueColorMode.VALUE)
    panel.graph_mode(BigValueGraphMode.NONE)
    panel.text_mode(BigValueTextMode.NAME if names else BigValueTextMode.AUTO)
    if states:
        panel.mappings(_mappings(states))
    else:
        panel.decimals(0 if unit == "none" else 1)
    return panel


def state_timeline(
    title: str, description: str, query: Query, states: States, *, width: int, height: int
) -> Builder[Panel]:
    """A bar for each series, in the colour and with the word of its state."""
    panel = _frame(statetimeline.Panel(), title, description, "none", (query,), width).height(height)
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    panel.line_width(0).fill_opacity(70).mappings(_mappings(states)).merge_values(True).show_value(
        VisibilityMode.AUTO
    ).legend(_legend())
    return panel


def table(
    title: str,
    description: str,
    query: Query,
    columns: dict[str, str],
    states: States,
    *,
    width: int,
    height: int,
) -> Builder[Panel]:
    """A table with a row for each series; `columns` are labels, or Value, and their headings in order."""
    panel = _frame(
        tables.Panel(), title, description, "none", (query,), width, instant=True, form=PromQueryFormat.TABLE
    ).height(height)
    panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(columns)},
                "renameByName": columns,
            },
        )
    )
    panel.align(FieldTextAlignment.AUTO).inspect(False)
    # Of the value only: a version may be called 1.
    states_of_value = [
        DynamicConfigValue("mappings", _mappings(states)),
        DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
    ]
    return panel.override_by_name(columns["Value"], states_of_value)


def bar_chart(title: str, description: str, unit: str, label: str, *queries: Query, width: int = 8) -> Builder[Panel]:
    """A group of bars for each value of a label, now: one bar a query."""
    panel = _frame(barchart.Panel(), title, description, unit, queries, width, instant=True, form=PromQueryFormat.TABLE)
    values = {f"Value #{ref}": query.legend for ref, query in zip(ascii_uppercase, queries, strict=False)}
    panel.with_transformation(DataTransformerConfig(id_val="joinByField", options={"byField": label, "mode": "outer"}))
    times = dict.fromkeys(("Time", *(f"Time {number}" for number in range(1, len(queries) + 1))), True)
    panel.with_transformation(
        DataTransformerConfig(id_val="organize", options={"excludeByName": times, "renameByName": values})
    )
    panel.x_field(label).min(0).group_width(0.8).line_width(1).fill_opacity(80).gradient_mode(
        GraphGradientMode.NONE
    ).show_value(VisibilityMode.NEVER).legend(_legend())
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    for query in queries:
        if query.role == "baseline":
            panel.override_by_name(query.legend, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": GREY})])
    return panel


def heatmap(title: str, description: str, unit: str, query: Query, *, width: int = 8) -> Builder[Panel]:
    """A histogram's buckets over time: the more fell into one, the darker."""
    panel = _frame(heatmaps.Panel(), title, description, unit, (query,), width, form=PromQueryFormat.HEATMAP)
    panel.hide_from(common.HideSeriesConfig().legend(False).tooltip(False).viz(False))
    panel.calculate(False).y_axis(heatmaps.YAxisConfig().unit(unit)).cell_values(heatmaps.CellValues().unit("short"))
    panel.color(
        heatmaps.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .scale(HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
    )
    return panel


class _Frame(Protocol):
    """What all builders of panels have; the SDK generates each for itself."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def datasource(self, datasource: DataSourceRef) -> Self: ...
    def interval(self, interval: str) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def with_target(self, target: Any) -> Self: ...


_Panel = TypeVar("_Panel", bound=_Frame)


def _frame(
    panel: _Panel,
    title: str,
    description: str,
    unit: str,
    queries: tuple[Query, ...],
    width: int,
    *,
    instant: bool = False,
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> _Panel:
    # Prometheus scrapes every 5 seconds: a finer step would show its values twice.
    panel.title(title).description(description).unit(unit).datasource(DATASOURCE).interval("5s").span(width).height(8)
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().ref_id(ref).datasource(DATASOURCE).expr(query.expr).legend_format(query.legend)
        target = (target.instant() if instant else target.range()).format(form)
        panel.with_target(target)
    return panel


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .calcs([])
    )


def _mappings(states: States) -> list[ValueMapping]:
    return [
        ValueMap(
            options={
                str(value): ValueMappingResult(text=text, color=colour, index=index)
                for index, (value, (text, colour)) in enumerate(states.items())
            }
        )
    ]
