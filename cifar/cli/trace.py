"""`cifar trace`: from an archive, or the digest in an answer's header, back to run, commit, data and parameters."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar.cli.options import JsonOption, ManagementUrlOption, StoreOption
from cifar.common.console import print_json
from cifar.common.project import MODEL_NAME, MODEL_STORE, ROOT
from cifar.provenance.archive import TracedArchive, find_digest, find_version, read_archive
from cifar.provenance.trace import Trace
from cifar.provenance.trace import trace as trace_archive

# What is looked at first; --json has all.
_IMPORTANT = (
    "model.name",
    "model.filters",
    "model.dropout",
    "train.epochs",
    "train.batch_size",
    "train.optimizer",
    "train.lr",
    "train.scheduler",
    "train.seed",
)
_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "dim")}
_LONG_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,52}")


def trace(
    management_url: ManagementUrlOption,
    digest: Annotated[
        str | None,
        typer.Argument(help="X-Model-Digest of an answer; or a SHA-256 of an archive or of weights, 8 digits or more."),
    ] = None,
    version: Annotated[str | None, typer.Option(help="The version to trace, instead of a digest.")] = None,
    archive: Annotated[Path | None, typer.Option(help="A file to trace, instead of one in the model store.")] = None,
    model_store: StoreOption = MODEL_STORE,
    checkout: Annotated[Path, typer.Option(help="Where weights and commits are looked for.", file_okay=False)] = ROOT,
    as_json: JsonOption = False,
) -> None:
    """Trace a version back to its run, commit, data and parameters; exit code 1 if a link does not hold."""
    found = trace_archive(_find(digest, version, archive, model_store), model_store, checkout, management_url)
    if as_json:
        print_json(asdict(found) | {"holds": not found.broken})
    else:
        _print(found)
    if found.broken:
        raise typer.Exit(1)


def _find(digest: str | None, version: str | None, archive: Path | None, store: Path) -> TracedArchive:
    if sum(given is not None for given in (digest, version, archive)) != 1:
        raise typer.BadParameter("name one: a digest, --version or --archive", param_hint="DIGEST")
    if archive is not None:
        return read_archive(archive)
    return find_version(store, version) if version is not None else find_digest(store, str(digest))


def _print(found: Trace) -> None:
    console = Console(highlight=False)
    console.print(Text(f"{MODEL_NAME} {found.version or '(version unknown)'}: {found.archive}"), soft_wrap=True)
    # Narrow enough for 80 columns; --json has digests in full.
    table = Table("Link", "", "Value", "Note", box=SIMPLE_HEAD, pad_edge=False)
    for link in found.links:
        mark, style = _MARKS[link.holds]
        table.add_row(link.name, Text(mark, style), _fold(_show(link.value)), _fold(_shorten(link.note)))
    console.print(table)
    shown = ", ".join(f"{key}={found.parameters[key]}" for key in _IMPORTANT if key in found.parameters)
    if shown:
        console.print(Text(f"Trained with {shown}"))


def _show(value: str | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.2%}"
    return _shorten(value or "–").removeprefix("http://")


def _shorten(text: str) -> str:
    return _LONG_DIGEST.sub(r"\1…", text)


def _fold(text: str) -> Text:
    return Text(text, overflow="fold")  # a path that is cut short is of no use
