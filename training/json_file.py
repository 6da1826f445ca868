"""Small JSON files that stand beside weights."""

from pathlib import Path
from typing import Any

import orjson

from training.atomic_write import atomic_write
from training.errors import WeightsError


def write_json(content: Any, path: Path) -> None:
    """Write `content` indented, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is no such file.

    Raises:
        WeightsError: no JSON, or something other than an object.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}; expected an object")
    return content
