"""Draws the dashboards of real data, where no Grafana runs.

Usage: python -m grafana.draw http://127.0.0.1:9090 [--minutes N] [--output FOLDER]

It reads the files that Grafana reads, sends the queries of their panels to the Prometheus at the address, and draws the
panels where they stand. The colours are not Grafana's. Needs matplotlib, of the extra `training`.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cifar.common.console import run_stage
from cifar.common.files import atomic_write
from grafana.build import FOLDER
from grafana.draw_panels import DRAW, NAMED, Event, PanelData, VersionColours
from grafana.prometheus import Prometheus, Series, substitute

SCREENSHOTS = FOLDER.parents[1] / "docs" / "pictures"

_COLUMNS = 24
_WIDTH_IN, _ROW_IN, _TOP_IN = 15.0, 0.285, 0.55
_DPI = 110
_POINTS = 240  # in a panel, at least: Grafana queries one a pixel
_PAGE, _CARD, _EDGE, _TEXT = "#f4f5f7", "#ffffff", "#d8dbe0", "#24292e"
# Between a panel's edges and what is drawn: left, below, right, above.
_EDGES_IN = {
    "stat": (0.1, 0.05, 0.1, 0.25),
    "table": (0.1, 0.1, 0.1, 0.35),
    "state-timeline": (0.4, 0.5, 0.15, 0.35),
    "barchart": (0.62, 0.6, 0.15, 0.55),
}
_STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "text.color": _TEXT,
    "axes.edgecolor": "#b8bcc4",
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.6,
    "xtick.color": "#555b63",
    "ytick.color": "#555b63",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def main(
    prometheus: Annotated[str, typer.Argument(help="its address, such as http://127.0.0.1:9090")],
    minutes: Annotated[float, typer.Option(help="how far back to look", min=1)] = 60.0,
    output: Annotated[Path, typer.Option(help="the folder of the screenshots")] = SCREENSHOTS,
) -> None:
    """Draw both dashboards up to now."""
    end = time.time()
    for file in sorted(FOLDER.glob("*.json")):
        draw(Prometheus(prometheus), json.loads(file.read_text(encoding="utf-8")), end - 60 * minutes, end, output)


def draw(prometheus: Prometheus, dashboard: dict[str, Any], begin: float, end: float, folder: Path) -> Path:
    """Draw one dashboard from `begin` to `end`, in seconds since 1970, as PNG named like its file."""
    step_s = max(1, round((end - begin) / _POINTS))
    events = [
        event
        for annotation in dashboard["annotations"]["list"]
        for event in _find_events(prometheus, annotation, begin, end, step_s)
    ]
    colours = VersionColours(_find_versions(prometheus, begin, end, step_s))
    height_in = _TOP_IN + _ROW_IN * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    path = folder / f"{dashboard['uid'].removeprefix('cifar-')}.png"
    with rc_context(_STYLE):
        figure = Figure((_WIDTH_IN, height_in), dpi=_DPI, facecolor=_PAGE)
        _write_head(figure, dashboard, begin, end)
        for panel in dashboard["panels"]:
            place = _place(panel["gridPos"], height_in)
            if panel["type"] == "row":
                figure.text(place[0], place[1] + place[3] / 2, f"▾ {panel['title']}", weight="bold", va="center")
                continue
            axes = _card(figure, panel, place)
            data = PanelData(panel, _query(prometheus, panel, begin, end, step_s), begin, end, step_s, events, colours)
            DRAW[panel["type"]](axes, data)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")
            # Few colours are in it: a palette makes it a third as large.
            with Image.open(temporary) as image:
                image.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)
    return path


def _write_head(figure: Figure, dashboard: dict[str, Any], begin: float, end: float) -> None:
    middle = 1 - 0.5 * _TOP_IN / figure.get_size_inches()[1]
    figure.text(0.008, middle, dashboard["title"], fontsize=14, weight="bold", va="center")
    for place, annotation in zip((0.35, 0.5), dashboard["annotations"]["list"], strict=True):
        colour = NAMED[annotation["iconColor"]]
        figure.text(place, middle, f"┆ {annotation['name']}", weight="bold", color=colour, va="center")
    span = " to ".join(time.strftime("%H:%M", time.gmtime(at)) for at in (begin, end))
    words = f"Version: All     {span} UTC     drawn from Prometheus by grafana/draw.py"
    figure.text(0.992, middle, words, ha="right", va="center", color="#555b63")


def _query(prometheus: Prometheus, panel: dict[str, Any], begin: float, end: float, step_s: int) -> list[list[Series]]:
    """Return the answers to each of the panel's queries."""
    answers = []
    for target in panel["targets"]:
        expression = substitute(target["expr"], step_s)
        over_time = not target["instant"]
        answers.append(
            prometheus.over_time(expression, begin, end, step_s) if over_time else prometheus.now(expression, end)
        )
    return answers


def _find_versions(prometheus: Prometheus, begin: float, end: float, step_s: int) -> list[str]:
    found = prometheus.over_time("group by (model_version) (cifar_build_info)", begin, end, step_s)
    return sorted(series.labels["model_version"] for series in found)


def _find_events(
    prometheus: Prometheus, annotation: dict[str, Any], begin: float, end: float, step_s: int
) -> list[Event]:
    return [
        Event(at, series.name(annotation["titleFormat"]), annotation["iconColor"])
        for series in prometheus.over_time(substitute(annotation["expr"], step_s), begin, end, step_s)
        for at, value in series.points
        if value > 0
    ]


def _place(grid: dict[str, int], height_in: float) -> tuple[float, float, float, float]:
    """Return left, bottom, width and height of a panel, as shares of the figure."""
    gap = 0.003
    height = grid["h"] * _ROW_IN / height_in
    bottom = 1 - (_TOP_IN + (grid["y"] + grid["h"]) * _ROW_IN) / height_in
    return grid["x"] / _COLUMNS + gap, bottom + gap, grid["w"] / _COLUMNS - 2 * gap, height - 2 * gap


def _card(figure: Figure, panel: dict[str, Any], place: tuple[float, float, float, float]) -> Axes:
    """Draw the panel's background and title; return axes that fill the rest."""
    left, bottom, width, height = place
    card = figure.add_axes(place, facecolor=_CARD)
    card.grid(False)
    card.set(xticks=(), yticks=())
    card.spines[:].set(visible=True, color=_EDGE, linewidth=0.8)
    width_in, height_in = (size * share for size, share in zip(figure.get_size_inches(), (width, height), strict=True))
    card.text(0.08 / width_in, 1 - 0.08 / height_in, panel["title"], va="top", weight="bold", transform=card.transAxes)
    west, south, east, north = _EDGES_IN.get(panel["type"], (0.62, 0.5, 0.15, 0.35))
    if panel["type"] == "state-timeline" and panel["gridPos"]["w"] > 8:
        west = 1.9  # names of alerts
    return figure.add_axes(
        (
            left + width * west / width_in,
            bottom + height * south / height_in,
            width * (1 - (west + east) / width_in),
            height * (1 - (south + north) / height_in),
        )
    )


if __name__ == "__main__":
    run_stage(main)
