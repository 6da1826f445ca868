"""The Markdown pages of the repository: their links, headings and commands."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from cifar.common.project import ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SEPARATORS = {"&&", "||", ";", "|", "&"}


class Link(NamedTuple):
    """A link without its scheme: `target` is "" where it leads to a heading of the page itself."""

    target: str
    anchor: str


def find_pages() -> list[Path]:
    """Return all pages that people read."""
    folders = ("docs", "benchmarks", "training", ".github")
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))])


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str = "bash") -> list[str]:
    return [text for found, text in _FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def links(page: Path) -> list[Link]:
    """Return the links to files and headings, without those to other sites."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    targets = [target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target)]
    return [Link(path, anchor) for path, _, anchor in (target.partition("#") for target in targets)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command: of the bash blocks, and of what begins with cifar or make in backticks."""
    lines = [line for block in blocks(page) for line in re.sub(r"\\\n", " ", _without_heredocs(block)).splitlines()]
    lines += re.findall(r"`((?:cifar|make|python -m) [^`\n]+)`", prose(page))
    return [command for line in lines for command in _split(line)]


def _without_heredocs(block: str) -> str:
    return re.sub(r"<<'?(\w+)'?\n.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)


def _split(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quotation that goes over several lines: no command of ours has one
        return []
    found: list[list[str]] = [[]]
    for word in words:
        if word in _SEPARATORS:
            found.append([])
        elif found[-1] or not re.fullmatch(r"[A-Z_]+=.*", word):  # a variable for the command
            found[-1].append(word.removeprefix(".venv/bin/"))
    return [command for command in found if command]
