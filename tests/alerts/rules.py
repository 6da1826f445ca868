"""What is in alerts/*.yaml."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "alerts").glob("*.yaml"))


def rules(kind: str) -> list[dict[str, Any]]:
    """Return all rules of a kind: `alert` or `record`."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]
