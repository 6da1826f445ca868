"""How each kind of panel is drawn by matplotlib."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from grafana.panels import BY_VERSION
from grafana.prometheus import Series

_PALETTE = (
    "#1f6fb2",
    "#e07b1a",
    "#2f9e5b",
    "#8a5bc0",
    "#c2405a",
    "#139fa8",
    "#b59b00",
    "#7a5c45",
    "#d46fb0",
    "#5d6b7a",
)
NAMED = {
    "green": "#2f9e5b",
    "red": "#d0312d",
    "orange": "#e07b1a",
    "blue": "#1f6fb2",
    "purple": "#8a5bc0",
    "yellow": "#d9b310",
}
_PALE = "#555b63"
_TICKS_S = (60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 604800)


@dataclass(frozen=True)
class Event:
    """A moment that is marked in all panels: seconds since 1970, its text, its colour."""

    at: float
    text: str
    colour: str


class VersionColours:
    """The colour of each version, the same in all panels.

    Args:
        versions: that have the first colours.
    """

    def __init__(self, versions: Iterable[str] = ()) -> None:
        self._colours: dict[str, str] = {}
        for version in versions:
            self.find(version)

    def find(self, version: str) -> str:
        """Return the colour of a version; one that is not known yet gets the next."""
        return self._colours.setdefault(version, _PALETTE[len(self._colours) % len(_PALETTE)])


@dataclass(frozen=True)
class PanelData:
    """A panel, the answers to each of its queries, its time, the distance of two points, the dashboard's events."""

    panel: dict[str, Any]
    answers: list[list[Series]]
    begin: float
    end: float
    step_s: int
    events: list[Event]
    colours: VersionColours

    @property
    def unit(self) -> str:
        """Return Grafana's name of the unit."""
        return str(self.panel["fieldConfig"]["defaults"]["unit"])

    @property
    def named(self) -> list[tuple[str, str, Series]]:
        """Return each series with its query's letter and its name, by query in the order of the names."""
        targets = zip(self.panel["targets"], self.answers, strict=True)
        return [
            (target["refId"], series.name(target["legendFormat"]), series)
            for target, answer in targets
            for series in sorted(answer, key=lambda one: one.name(target["legendFormat"]))
        ]


class _UnitLocator(MaxNLocator):
    """Ticks at round values of the unit that is shown: mebibytes are shown as gibibytes."""

    def __init__(self, unit: str) -> None:
        super().__init__(5, min_n_ticks=3)
        self._scale = 1024 if unit == "mbytes" else 1

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the ticks between two values, in the panel's unit."""
        return np.asarray(super().tick_values(vmin / self._scale, vmax / self._scale)) * self._scale


def _draw_timeseries(axes: Axes, data: PanelData) -> None:
    custom = data.panel["fieldConfig"]["defaults"]["custom"]
    from_zero = "axisSoftMin" in custom
    fixed, styles = _fixed_colours(data.panel), _line_styles(data.panel)
    palette = itertools.cycle(_PALETTE)
    of_versions = {target["refId"] for target in data.panel["targets"] if target["legendFormat"].startswith(BY_VERSION)}
    if custom.get("stacking", {}).get("mode") == "normal":
        _draw_stack(axes, data)
    else:
        for ref, name, series in data.named:
            own = data.colours.find(series.labels.get("model_version", "")) if ref in of_versions else None
            colour = fixed.get(ref) or own or next(palette)
            times, values = zip(*series.points, strict=True)
            style = styles.get(ref, "-")
            axes.plot(times, values, style, color=colour, lw=1.4 if style == "-" else 1.1, label=name)
            if style == "-" and from_zero:
                axes.fill_between(times, values, alpha=0.07, color=colour, lw=0)
        low, high = axes.get_ylim()
        if from_zero:
            axes.set_ylim(min(low, 0) if min(_lowest(data), 0) < 0 else 0, high if high > 0 else 1)
    _finish(axes, data)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, data.unit)))
    axes.yaxis.set_major_locator(_UnitLocator(data.unit))


def _draw_stack(axes: Axes, data: PanelData) -> None:
    moments = sorted({at for _, _, series in data.named for at, _ in series.points})
    values = [[dict(series.points).get(at, 0.0) for at in moments] for _, _, series in data.named]
    names = [name for _, name, _ in data.named]
    axes.stackplot(moments, values, labels=names, colors=_PALETTE, alpha=0.8, lw=0)
    axes.set_ylim(0, 1)


def _draw_stat(axes: Axes, data: PanelData) -> None:
    axes.set_axis_off()
    defaults = data.panel["fieldConfig"]["defaults"]
    states = _states(defaults)
    names_only = data.panel["options"]["textMode"] == "name"
    for index, (_, name, series) in enumerate(data.named):
        value = series.points[-1][1]
        text, colour = states.get(value, (format_value(value, data.unit, defaults.get("decimals")), ""))
        colour = colour or _threshold_colour(defaults["thresholds"]["steps"], value)
        middle = (index + 0.5) / len(data.named)
        axes.text(middle, 0.62, name if names_only else text, ha="center", va="center", fontsize=17, color=colour)
        if not names_only:
            axes.text(middle, 0.22, name, ha="center", va="center", color=_PALE)


def _draw_state_timeline(axes: Axes, data: PanelData) -> None:
    states = _states(data.panel["fieldConfig"]["defaults"])
    series = data.named[::-1]
    seen = set()
    for row, (_, _, one) in enumerate(series):
        for at, value in one.points:
            text, colour = states[value]
            axes.barh(row, data.step_s, left=at, height=0.62, color=colour, lw=0)
            seen.add((text, colour))
    axes.set_yticks(range(len(series)), [name for _, name, _ in series])
    axes.set_ylim(-0.6, max(len(series), 3) - 0.4)
    axes.tick_params(axis="y", labelsize=6.5)
    for text, colour in sorted(seen):
        axes.plot([], [], "s", color=colour, label=text)
    _finish(axes, data)
    axes.grid(False, axis="y")


def _draw_bar_chart(axes: Axes, data: PanelData) -> None:
    label = data.panel["options"]["xField"]
    fixed = _fixed_colours(data.panel)
    columns = {
        target["legendFormat"]: {series.labels[label]: series.points[-1][1] for series in answer}
        for target, answer in zip(data.panel["targets"], data.answers, strict=True)
    }
    names = sorted({name for column in columns.values() for name in column})
    width = 0.8 / len(columns)
    for index, (title, column) in enumerate(columns.items()):
        places = np.arange(len(names)) + (index - (len(columns) - 1) / 2) * width
        colour = fixed.get(title) or _PALETTE[index]
        axes.bar(places, [column.get(name, 0) for name in names], width, color=colour, label=title)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", labelsize=6.5, pad=1)
    axes.grid(False, axis="x")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, data.unit)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, fontsize=6.5)


def _draw_heatmap(axes: Axes, data: PanelData) -> None:
    [answer] = data.answers
    rows = sorted(answer, key=lambda series: float(series.labels["le"]))
    moments = sorted({at for series in rows for at, _ in series.points})
    cumulative = np.array([[dict(series.points).get(at, 0.0) for at in moments] for series in rows])
    counts = np.diff(cumulative, axis=0, prepend=0).clip(0)
    step = moments[1] - moments[0]
    times = [*moments, moments[-1] + step]
    colours = np.sqrt(counts)  # the root, as the panel asks for: few are of interest too
    axes.pcolormesh(times, np.arange(len(rows) + 1), colours, cmap="Blues")
    bounds = [float(series.labels["le"]) for series in rows]
    texts = ["1" if np.isinf(bound) else f"{100 * bound:g} %" for bound in bounds]
    texts = ["100 %" if text == "1" else text for text in texts]
    axes.set_yticks(np.arange(1, len(rows) + 1), texts)
    axes.tick_params(axis="y", labelsize=6)
    _finish(axes, data)
    axes.grid(False)


def _draw_table(axes: Axes, data: PanelData) -> None:
    axes.set_axis_off()
    columns = data.panel["transformations"][0]["options"]["renameByName"]
    [override] = data.panel["fieldConfig"]["overrides"]
    states = _states({found["id"]: found["value"] for found in override["properties"]})
    left = np.linspace(0, 1, len(columns) + 1)
    for place, heading in zip(left, columns.values(), strict=False):
        axes.text(place, 0.95, heading, va="top", color=_PALE)
    for row, (_, _, series) in enumerate(data.named):
        for place, label in zip(left, columns, strict=False):
            text, colour = (
                states[series.points[-1][1]] if label == "Value" else (series.labels.get(label, "")[:10], "#24292e")
            )
            axes.text(place, 0.75 - 0.2 * row, text, va="top", color=colour)


DRAW: Mapping[str, Callable[[Axes, PanelData], None]] = {
    "timeseries": _draw_timeseries,
    "stat": _draw_stat,
    "state-timeline": _draw_state_timeline,
    "barchart": _draw_bar_chart,
    "heatmap": _draw_heatmap,
    "table": _draw_table,
}


def format_value(value: float, unit: str, decimals: int | None = None) -> str:
    """Write a value in Grafana's unit."""
    if unit == "percentunit":
        return f"{100 * value:.{decimals}f} %" if decimals is not None else f"{100 * value:.3g} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "mbytes":
        return f"{value / 1024:.3g} GiB"
    if unit.startswith("suffix:"):
        return f"{value:.{decimals or 0}f}{unit.removeprefix('suffix:')}"
    number = f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}"
    if unit == "short" and abs(value) >= 1000:
        number = f"{value / 1000:.3g} K"
    return number + {"percent": " %", "reqps": " req/s"}.get(unit, "")


def _finish(axes: Axes, data: PanelData) -> None:
    """Set the times, the events and the legend."""
    axes.set_xlim(data.begin, data.end)
    axes.xaxis.set_major_locator(
        MultipleLocator(next(tick for tick in _TICKS_S if (data.end - data.begin) / tick <= 6))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: time.strftime("%H:%M", time.gmtime(at))))
    for event in data.events:
        axes.axvline(event.at, color=NAMED[event.colour], lw=0.9, ls=":")
    _, names = axes.get_legend_handles_labels()
    if names:
        columns = 5 if len(names) > 5 else len(names)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.11 * 1.6 / max(axes.bbox.height / 110, 0.5)),
            ncols=columns,
            fontsize=6.5,
            columnspacing=1,
            handlelength=1.2,
            handletextpad=0.4,
            labelspacing=0.2,
        )


def _lowest(data: PanelData) -> float:
    return min((value for _, _, series in data.named for _, value in series.points), default=0.0)


def _states(defaults: Mapping[str, Any]) -> dict[float, tuple[str, str]]:
    """Return the text and the colour of each value that has one."""
    return {
        float(value): (shown["text"], NAMED[shown["color"]])
        for mapping in defaults.get("mappings", ())
        for value, shown in mapping["options"].items()
    }


def _threshold_colour(steps: list[dict[str, Any]], value: float) -> str:
    reached = [step for step in steps if step.get("value") is None or value >= step["value"]]
    return NAMED[reached[-1]["color"]]


def _fixed_colours(panel: dict[str, Any]) -> dict[str, str]:
    """Return the colours that overrides fix, by query or by name."""
    return {
        override["matcher"]["options"]: NAMED.get(colour, colour)
        for override in panel["fieldConfig"]["overrides"]
        for colour in (found["value"]["fixedColor"] for found in override["properties"] if found["id"] == "color")
    }


def _line_styles(panel: dict[str, Any]) -> dict[str, str]:
    """Return matplotlib's line styles by query; those without an override have none."""
    return {
        override["matcher"]["options"]: {"dash": "--", "dot": ":"}[found["value"]["fill"]]
        for override in panel["fieldConfig"]["overrides"]
        for found in override["properties"]
        if found["id"] == "custom.lineStyle"
    }
