"""`cifar status`: what a running server serves, version by version."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.errors import CifarError
from client.management import ManagementClient, ModelVersion
from client.options import check_url_option
from client.tokens import DEFAULT_MANAGEMENT_URL

_DIGEST_DIGITS = 12  # as many as X-Model-Digest has
_RUN_DIGITS = 8


@dataclass(frozen=True)
class VersionStatus:
    """One version, as `cifar status --json` prints it.

    Attributes:
        version: as its archive says.
        default: whether requests that name no version get this one.
        archive: its file name in the model store.
        ready_workers: those that have loaded the model.
        workers: how many there should be.
        queue_length: requests that wait for one.
        started: when the first of its workers was started; None without workers.
        about: what its handler says (docs/http-api.md, "What is served"); empty where it does not answer.
    """

    version: str
    default: bool
    archive: str
    ready_workers: int
    workers: int
    queue_length: int
    started: datetime | None
    about: dict[str, Any]


def status(
    management_url: Annotated[
        str, typer.Option(callback=check_url_option, help="Where the management API listens.")
    ] = DEFAULT_MANAGEMENT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Show the versions that a server serves; exit code 1 unless all of them are ready."""
    with ManagementClient(management_url) as management:
        found = read_status(management)
    if as_json:
        document = {"versions": [asdict(version) for version in found]}
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        Console().print(_table(found))
    if any(version.ready_workers < max(1, version.workers) for version in found):
        raise typer.Exit(1)


def read_status(management: ManagementClient) -> list[VersionStatus]:
    """Return the versions in the order in which they were registered; raises CifarError (client.errors)."""
    default = management.describe().version
    return [_read_version(management, described, default) for described in management.describe_all()]


def _read_version(management: ManagementClient, described: ModelVersion, default: str) -> VersionStatus:
    return VersionStatus(
        version=described.version,
        default=described.version == default,
        archive=described.archive,
        ready_workers=described.ready_workers,
        workers=described.min_workers,
        queue_length=described.queue_length,
        started=min((worker.started for worker in described.workers), default=None),
        about=_ask_handler(management, described),
    )


def _ask_handler(management: ManagementClient, described: ModelVersion) -> dict[str, Any]:
    """Return what the handler says; a version without a worker would leave the question in its queue."""
    if not described.ready_workers:
        return {}
    try:
        return management.customized(described.version)
    except CifarError:  # a busy or foreign handler: the rest of the table is worth having
        return {}


def _table(found: list[VersionStatus]) -> Table:
    # Narrow enough for 80 columns; --json has the rest.
    table = Table("Version", "Ready", "Queue", "Weights", "Accuracy", "Run", "Age", box=SIMPLE_HEAD)
    for version in found:
        ready = version.ready_workers == version.workers > 0
        table.add_row(
            Text.assemble((version.version, "bold"), (" default", "green") if version.default else ""),
            Text(f"{version.ready_workers} of {version.workers}", style="" if ready else "bold red"),
            str(version.queue_length),
            _short(version.about.get("weights_digest"), _DIGEST_DIGITS),
            _share(version.about.get("accuracy")),
            _short(version.about.get("mlflow_run"), _RUN_DIGITS),
            _age(version.started),
        )
    return table


def _short(value: object, digits: int) -> str:
    return value[:digits] if isinstance(value, str) else "–"


def _share(value: object) -> str:
    return f"{value:.2%}" if isinstance(value, float) else "–"


def _age(started: datetime | None) -> str:
    if started is None:
        return "–"
    seconds = max(0, int((datetime.now(UTC) - started).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
