"""Output that no encoding stops: terminals, pipes and logs may be ASCII (LANG=C) or a Windows code page."""

import codecs
import sys
from collections.abc import Callable
from typing import Any

import orjson
import typer
from rich.console import Console

from cifar.common.errors import CifarError

console = Console()

_ERRORS = "cifar_plain"  # name of the error handler, for codecs
# Of a width that keeps tables straight, but for the last rows.
_PLAIN = (
    {"█": "#", "▓": "#", "▒": "-", "░": ".", "✓": "+", "✗": "x", "×": "x", "·": ".", "•": "*", "●": "*"}
    | dict.fromkeys("–—−─━═╌┄‐‑", "-")
    | dict.fromkeys("│┃║▏▕", "|")
    | dict.fromkeys("‘’", "'")
    | dict.fromkeys("“”„", '"')
    | {"\u00a0": " ", "\u2009": " ", "\u202f": " ", "µ": "u", "μ": "u"}
    | {"…": "...", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "±": "+-", "°": " deg"}
)
_SPINNERS = range(0x2800, 0x2900)  # braille
_LINES = range(0x2500, 0x2580)  # corners and crossings
_BARS = range(0x2580, 0x25A0)
_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # bytes of a file's name that are no UTF-8


def run_stage(main: Callable[..., None]) -> None:
    """Run `main` as a command of its own; a CifarError or a failing disk becomes one message and exit code 1."""
    accept_any_text()
    try:
        typer.run(main)
    except (CifarError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def accept_any_text() -> None:
    """Let standard output and error print every text: what their encoding lacks is drawn in ASCII or escaped.

    To be called once, by a command's main. A stream for which the person chose how (PYTHONIOENCODING=ascii:ignore)
    stays as it is.
    """
    codecs.register_error(_ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # what replaces the streams in tests may have none
        if reconfigure is not None and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            reconfigure(errors=_ERRORS)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document that every reader takes: in UTF-8, or escaped where standard output is something else."""
    try:
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONEncodeError:  # bytes of a file's name that are no UTF-8
        text = orjson.dumps(_without_surrogates(document), option=orjson.OPT_INDENT_2).decode()
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    typer.echo(text if encoding == "utf8" else "".join(map(_escape_json, text)))


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_draw, error.object[error.start : error.end])), error.end


def _draw(character: str) -> str:
    number = ord(character)
    if character in _PLAIN:
        return _PLAIN[character]
    for numbers, plain in ((_SPINNERS, "*"), (_LINES, "+"), (_BARS, "#")):
        if number in numbers:
            return plain
    if number in _ESCAPED_BYTES:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode()


def _escape_json(character: str) -> str:
    if character.isascii():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[start : start + 2].hex()}" for start in range(0, len(units), 2))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(_draw(inner) if 0xD800 <= ord(inner) < 0xE000 else inner for inner in value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(inner) for inner in value]
    return value
