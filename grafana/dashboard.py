"""What all dashboards have: rows of panels, a variable for the versions, annotations where the default changes."""

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

# The versions that are chosen at the top of the dashboard.
VERSION = 'model_version=~"$version"'
# Share of requests that are rejected: 0 where none is. The sum drops the name, by which they would be two series.
REJECTED = (
    f"sum by (model_version) (version:cifar_rejected_inputs:ratio_rate5m{{{VERSION}}} "
    f"or 0 * version:cifar_requests:rate5m{{{VERSION}}})"
)

_TAG = "cifar"


@dataclass(frozen=True)
class Annotation:
    """Marks in all panels: where `expr` has a value above 0.

    Attributes:
        name: of the switch at the top of the page.
        expr: PromQL; $__interval is the distance of two points.
        text: of a mark, with labels as {{label}}.
        colour: of the line.
    """

    name: str
    expr: str
    text: str
    colour: str


# A version is the default now, was not one step ago, and another was in the last hour: true of rollbacks as well as of
# deployments, and not of a Prometheus that was just started.
_DEFAULT = 'up{job="deployed", default="true"}'
DEPLOYED = Annotation(
    "Deployments and rollbacks",
    f"(group by (model_version) ({_DEFAULT}) unless group by (model_version) ({_DEFAULT} offset $__interval)) "
    f"and on () count(group by (model_version) (count_over_time({_DEFAULT}[1h]))) > 1",
    "{{model_version}} is the default",
    "purple",
)
_STARTS = "sum by (model_version) (cifar_worker_starts_total)"
STARTED = Annotation(
    "Worker starts",
    f"{_STARTS} - (sum by (model_version) (cifar_worker_starts_total offset $__interval) or 0 * {_STARTS}) > 0",
    "Workers of {{model_version}} start",
    "orange",
)


def dashboard(
    uid: str,
    title: str,
    description: str,
    rows: Mapping[str, Sequence[Builder[Panel]]],
    annotations: Sequence[Annotation] = (DEPLOYED, STARTED),
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
    for annotation in annotations:
        build.annotation(_AnnotationBuilder(annotation))
    for name, panels in rows.items():
        build.with_row(builders.Row(name))
        for panel in panels:
            build.with_panel(panel)
    built = build.build()
    for number, panel_or_row in enumerate(built.panels or (), 1):
        panel_or_row.id_val = number
    return built


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
    """With what the SDK has no fields for: the text of an annotation."""

    text: str

    def to_json(self) -> dict[str, object]:
        """Return what Grafana reads."""
        return super().to_json() | {"titleFormat": self.text, "tagKeys": "model_version", "step": "5s"}


class _AnnotationBuilder(Builder[AnnotationQuery]):
    def __init__(self, annotation: Annotation) -> None:
        self._annotation = annotation

    def build(self: Self) -> AnnotationQuery:
        described = self._annotation
        query = _PrometheusAnnotation(described.name, DATASOURCE, icon_color=described.colour, expr=described.expr)
        query.text = described.text
        return query
