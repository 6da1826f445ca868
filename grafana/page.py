"""What all dashboards have: rows of panels, the choice of versions, marks where a version becomes the default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana.panels import DATASOURCE

# The versions that were chosen at the top of the page.
VERSION = 'model_version=~"$version"'
# Share of requests that are refused: 0 where nothing was. The sum drops the name, by which they would be two series.
REFUSED = (
    f"sum by (model_version) (version:cifar_rejected_inputs:ratio_rate5m{{{VERSION}}} "
    f"or 0 * version:cifar_requests:rate5m{{{VERSION}}})"
)

_TAG = "cifar"


@dataclass(frozen=True)
class Mark:
    """Moments that are marked in all panels: those at which `expr` has a value above 0.

    Attributes:
        name: of the switch at the top of the page.
        expr: PromQL; $__interval is the distance of two moments that are looked at.
        text: of a mark, with labels as {{label}}.
        colour: of the line.
    """

    name: str
    expr: str
    text: str
    colour: str


# A version is the default now, was not one step ago, and another was in the last hour: true of rollbacks as well as of
# deployments, and not of a Prometheus that has just begun to look.
_DEFAULT = 'up{job="deployed", default="true"}'
DEPLOYED = Mark(
    "Deployments and rollbacks",
    f"(group by (model_version) ({_DEFAULT}) unless group by (model_version) ({_DEFAULT} offset $__interval)) "
    f"and on () count(group by (model_version) (count_over_time({_DEFAULT}[1h]))) > 1",
    "{{model_version}} is the default",
    "purple",
)
_STARTS = "sum by (model_version) (cifar_worker_starts_total)"
STARTED = Mark(
    "Worker starts",
    f"{_STARTS} - (sum by (model_version) (cifar_worker_starts_total offset $__interval) or 0 * {_STARTS}) > 0",
    "Workers of {{model_version}} start",
    "orange",
)


def page(
    uid: str,
    title: str,
    description: str,
    rows: Mapping[str, Sequence[Builder[Panel]]],
    marks: Sequence[Mark] = (DEPLOYED, STARTED),
) -> Dashboard:
    """Put panels into their rows, from left to right, and give them their numbers."""
    build = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([_TAG])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(_versions())
        .link(
            builders.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    for mark in marks:
        build.annotation(_Annotation(mark))
    for name, panels in rows.items():
        build.with_row(builders.Row(name))
        for panel in panels:
            build.with_panel(panel)
    dashboard = build.build()
    for number, panel_or_row in enumerate(dashboard.panels or (), 1):
        panel_or_row.id_val = number
    return dashboard


def _versions() -> builders.QueryVariable:
    return (
        builders.QueryVariable("version")
        .label("Version")
        .description("Versions of the model")
        .datasource(DATASOURCE)
        .query({"qryType": 1, "query": "label_values(cifar_build_info, model_version)", "refId": "versions"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


class _PrometheusAnnotation(AnnotationQuery):
    """With what the SDK has no fields for: what a mark says."""

    text: str

    def to_json(self) -> dict[str, object]:
        """Return what Grafana reads."""
        return super().to_json() | {"titleFormat": self.text, "tagKeys": "model_version", "step": "5s"}


class _Annotation(Builder[AnnotationQuery]):
    def __init__(self, mark: Mark) -> None:
        self._mark = mark

    def build(self: Self) -> AnnotationQuery:
        mark = self._mark
        annotation = _PrometheusAnnotation(mark.name, DATASOURCE, icon_color=mark.colour, expr=mark.expr)
        annotation.text = mark.text
        return annotation
