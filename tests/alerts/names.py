"""Which metrics there are, and which an expression asks for."""

import re

import yaml

from tests.alerts.rules import ROOT, rules

# Prometheus's own, and what is no metric in an expression.
_OWN = {"up", "ALERTS"}
_WORDS = {
    *("sum", "max", "min", "avg", "count", "group", "abs", "absent", "changes", "rate", "increase", "scalar", "vector"),
    *("clamp_max", "clamp_min", "count_over_time", "histogram_quantile", "label_replace", "last_over_time"),
    *("by", "on", "group_left", "and", "or", "unless", "offset"),
}


def known_metrics() -> set[str]:
    """Return what handler/metrics.yaml declares, what the rules record, and what Prometheus itself has."""
    declared = yaml.safe_load((ROOT / "handler" / "metrics.yaml").read_text())
    parts = (declared[part].values() for part in ("ts_metrics", "model_metrics"))
    names = {metric["name"] for part in parts for kind in part for metric in kind}
    return names | {rule["record"] for rule in rules("record")} | _OWN


def metrics_of(expression: str) -> set[str]:
    """Return the metrics in an expression."""
    bare = re.sub(
        r"""\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\$\w+|\b(by|on|group_left) \([^)]*\)|\b[\d.]+e?\d*[smhd]?\b""", " ", expression
    )
    return set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*", bare)) - _WORDS
