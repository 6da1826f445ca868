"""Queries Prometheus as Grafana would: with the dashboard's variables put in, and series named by their legend."""

import re
from dataclasses import dataclass
from typing import Any

import requests

# The data source's timeInterval: how often Prometheus scrapes.
_SCRAPE_S = 5
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Series:
    """One series of an answer.

    Attributes:
        labels: its labels.
        points: seconds since 1970, and values.
    """

    labels: dict[str, str]
    points: list[tuple[float, float]]

    def name(self, legend: str) -> str:
        """Return its name by a legend."""
        return re.sub(r"\{\{(\w+)\}\}", lambda match: self.labels.get(match[1], ""), legend).strip()


def substitute(expression: str, step_s: int, version: str = ".*") -> str:
    """Put in what Grafana does; the versions are a regular expression, that of "All" by default."""
    rate_s = max(step_s + _SCRAPE_S, 4 * _SCRAPE_S)
    variables = {"$version": version, "$__rate_interval": f"{rate_s}s", "$__interval": f"{step_s}s"}
    for name, value in variables.items():
        expression = expression.replace(name, value)
    return expression


@dataclass(frozen=True)
class Prometheus:
    """The Prometheus at `url`. Its methods raise requests.RequestException with Prometheus's own message."""

    url: str

    def now(self, expression: str, at: float | None = None) -> list[Series]:
        """Return an expression's value, now or at another time, in seconds since 1970."""
        return self._query("query", {"query": expression} | ({"time": at} if at is not None else {}))

    def over_time(self, expression: str, begin: float, end: float, step_s: int) -> list[Series]:
        """Return an expression's values from `begin` to `end`, at every multiple of the step, as Grafana does."""
        begin, end = begin // step_s * step_s, end // step_s * step_s
        return self._query("query_range", {"query": expression, "start": begin, "end": end, "step": step_s})

    def _query(self, path: str, parameters: dict[str, Any]) -> list[Series]:
        answer = requests.post(f"{self.url}/api/v1/{path}", data=parameters, timeout=_TIMEOUT_S)
        if not answer.ok:
            raise requests.HTTPError(f"{parameters['query']}: {answer.text}", response=answer)
        return [
            Series(found["metric"], [(float(at), float(value)) for at, value in _points(found)])
            for found in answer.json()["data"]["result"]
        ]


def _points(found: dict[str, Any]) -> list[tuple[float, str]]:
    return found["values"] if "values" in found else [found["value"]]
