"""`cifar trace`: from an archive, or the digest in an answer's header, back to run, commit, data and parameters."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.addresses import own_addresses
from client.inference import MODEL_NAME
from client.options import ManagementUrlOption
from deployment.trace_archive import TracedArchive, find_digest, find_version, read_archive
from deployment.trace_links import Evidence, Link, check_links, list_parameters
from deployment.trace_sources import ask_mlflow, ask_server, find_weights
from launcher.server import MODEL_STORE, ROOT
from training.console import print_json

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


@dataclass(frozen=True)
class Trace:
    """Where an archive comes from, link by link.

    Attributes:
        archive: the file.
        version: as its manifest says; None where that cannot be read.
        links: the chain.
        parameters: how the network was trained, `section.key` to value; empty where nobody here knows.
    """

    archive: str
    version: str | None
    links: tuple[Link, ...]
    parameters: dict[str, Any]

    @property
    def broken(self) -> list[Link]:
        """The links that do not hold."""
        return [link for link in self.links if link.holds is False]


def trace_command(
    management_url: ManagementUrlOption,
    digest: Annotated[
        str | None,
        typer.Argument(help="X-Model-Digest of an answer; or a SHA-256 of an archive or of weights, 8 digits or more."),
    ] = None,
    version: Annotated[str | None, typer.Option(help="The version to trace, instead of a digest.")] = None,
    archive: Annotated[Path | None, typer.Option(help="A file to trace, instead of one in the model store.")] = None,
    model_store: Annotated[Path, typer.Option(help="Folder of the archives.", file_okay=False)] = MODEL_STORE,
    checkout: Annotated[Path, typer.Option(help="Where weights and commits are looked for.", file_okay=False)] = ROOT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Trace a version back to its run, commit, data and parameters; exit code 1 if a link does not hold."""
    found = trace(_find(digest, version, archive, model_store), model_store, checkout, management_url)
    if as_json:
        print_json(asdict(found) | {"holds": not found.broken})
    else:
        _print(found)
    if found.broken:
        raise typer.Exit(1)


def trace(
    archive: TracedArchive,
    store: Path = MODEL_STORE,
    checkout: Path = ROOT,
    management_url: str | None = None,
) -> Trace:
    """Check every link between an archive and what it was made of; changes nothing, runs no code of the archive.

    Args:
        archive: from find_version, find_digest or read_archive (deployment/trace_archive.py).
        store: the model store, which remembers what was deployed.
        checkout: of the repository, for its commits and for the weights in it.
        management_url: of the server that may be running; None: of this checkout's.

    Raises:
        ServingUnusable: the store's serving.json cannot be read.
    """
    management_url = management_url or own_addresses().management
    evidence = Evidence(
        archive=archive,
        store=store,
        checkout=checkout,
        weights=find_weights(checkout, archive),
        tracked=ask_mlflow(archive),
        server=ask_server(management_url, archive.version) if archive.version else "the archive cannot be read",
        server_url=management_url,
    )
    return Trace(str(archive.path), archive.version, check_links(evidence), list_parameters(evidence))


def _find(digest: str | None, version: str | None, archive: Path | None, store: Path) -> TracedArchive:
    if sum(it is not None for it in (digest, version, archive)) != 1:
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
