"""Commands in the pages exist, with the options that are shown. That they work is for tests/e2e/test_docs.py."""

import re

import pytest
import typer

from cifar.cli.main import app
from cifar.common.project import ROOT
from tests.support.pages import commands, find_pages, name

COMMAND_LINE = typer.main.get_command(app)
COMMANDS = COMMAND_LINE.commands  # type: ignore[attr-defined]  # a group has them
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
PAGES = [page for page in find_pages() if page.name != "CHANGELOG.md" and commands(page)]


def options(command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def wrong_with(words: list[str]) -> str | None:
    """What is wrong with a command of ours; None for one that is right, or not ours."""
    program, *arguments = words
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    if program == "cifar" and arguments:
        if arguments[0].startswith("--"):
            unknown = given - options(COMMAND_LINE) - {"--help"}
        elif arguments[0] not in COMMANDS:
            return f"cifar has no command {arguments[0]}"
        else:
            unknown = given - options(COMMANDS[arguments[0]])
        return f"cifar {arguments[0]} has no {unknown}" if unknown else None
    if program == "make":
        variables = {argument.partition("=")[0] for argument in arguments if "=" in argument}
        unknown = {argument for argument in arguments if re.fullmatch("[a-z-]+", argument)} - TARGETS
        unknown |= {variable for variable in variables if f"$({variable})" not in MAKEFILE}
        return f"make has no {unknown}" if unknown else None
    if words[:2] in (["python", "-m"], ["python3", "-m"]) and re.match("(training|benchmarks|grafana|drill)", words[2]):
        module = ROOT / words[2].replace(".", "/")
        missing = words[2] != "benchmarks.NAME" and not (module.is_dir() or module.with_suffix(".py").is_file())
        return f"there is no module {words[2]}" if missing else None
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_exists_with_its_options(page):
    assert not [wrong for words in commands(page) if (wrong := wrong_with(words))]


@pytest.mark.parametrize(
    "words",
    [
        ["cifar", "deployx", "x.mar"],
        ["cifar", "deploy", "x.mar", "--keeep", "3"],
        ["cifar", "--versions"],
        ["make", "uup"],
        ["make", "up", "VERSIONS=2.0"],
        ["python", "-m", "training.trains"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_found(words):
    assert wrong_with(words)


def test_every_command_of_cifar_and_make_is_on_some_page():
    shown = {tuple(words[:2]) for page in PAGES for words in commands(page)}
    assert not {command for command in COMMANDS if ("cifar", command) not in shown}
    assert not {target for target in TARGETS if ("make", target) not in shown}
