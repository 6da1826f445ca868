"""Reads and writes the files of this tool's own state. Others can write them too: every field is checked."""

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cifar.common.files import atomic_write, remove_leftovers

_SHOWN = 80  # characters of a wrong value


@dataclass(frozen=True)
class Field:
    """What one key of an object may hold.

    Attributes:
        expected: in words.
        accepts: whether a value is that.
        required: whether the key must be there; else it is None where it is missing.
    """

    expected: str
    accepts: Callable[[Any], bool]
    required: bool = True


def read_state_file(path: Path, max_bytes: int) -> Any:
    """Return the JSON of a regular file.

    Raises:
        OSError: it is missing, or cannot be read.
        ValueError: it is no regular file, too long, or no JSON.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes:,} bytes")
    return orjson.loads(content)


def write_state_file(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all; the caller holds the lock of the folder. Raises OSError."""
    remove_leftovers(path)  # of a process that was killed
    document = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    # Equal content needs no space on a full disk.
    if path.is_file() and path.stat().st_size == len(document) and path.read_bytes() == document:
        return
    with atomic_write(path) as temporary:
        temporary.write_bytes(document)


def check_object(content: object, where: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return an object that has these keys, no others, and in each what is expected; raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} is {_show(content)}; expected an object")
    unknown = sorted(content.keys() - fields.keys())
    if unknown:
        raise ValueError(f"{where} has the unknown key {_show(unknown[0])}; expected {', '.join(fields)}")
    for key, field in fields.items():
        if key not in content and field.required:
            raise ValueError(f"{where} lacks {key}")
        if key in content and not field.accepts(content[key]):
            raise ValueError(f"{where} has {key} {_show(content[key])}; expected {field.expected}")
    return {key: content.get(key) for key in fields}


def text(pattern: str, expected: str) -> Field:
    """A string that matches a pattern as a whole."""
    return Field(expected, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def whole_number(least: int, most: int) -> Field:
    """A whole number in these bounds."""
    return Field(f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def boolean() -> Field:
    """True or false."""
    return Field("true or false", lambda value: isinstance(value, bool))


def list_of(kind: type, most: int) -> Field:
    """A list of at most `most` values of a type."""
    return Field(
        f"a list of up to {most}",
        lambda value: isinstance(value, list) and len(value) <= most and all(isinstance(one, kind) for one in value),
    )


def optional(field: Field) -> Field:
    """The same, or null, or missing."""
    return Field(f"{field.expected}, or null", lambda value: value is None or field.accepts(value), required=False)


def _show(value: object) -> str:
    shown = orjson.dumps(value).decode()
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
