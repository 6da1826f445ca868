"""The class names, read from their sole owner, `handler/index_to_name.json`."""

import json
from pathlib import Path

_FILE = Path(__file__).resolve().parent.parent / "handler" / "index_to_name.json"


def class_names() -> tuple[str, ...]:
    """Return the ten names; the position of a name is its class index."""
    names: dict[str, str] = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(names[str(index)] for index in range(len(names)))
