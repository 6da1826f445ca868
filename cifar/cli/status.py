"""`cifar status`: what a running server serves, version by version, and how that differs from what it should."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar.cli.options import JsonOption, ManagementUrlOption
from cifar.client.management import ManagementClient
from cifar.common.addresses import own_addresses
from cifar.common.console import print_json
from cifar.common.errors import InvalidStateFile
from cifar.common.project import MODEL_STORE, RUN_DIR
from cifar.deployment.observed_state import (
    VersionStatus,
    find_mismatches,
    find_undeployed,
    read_other_models,
    read_status,
)
from cifar.server.run_state import started_archives

_DIGEST_DIGITS = 12  # as many as X-Model-Digest has
_RUN_DIGITS = 8


def status(
    management_url: ManagementUrlOption,
    model_store: Annotated[
        Path | None,
        typer.Option(help="The server's model store, which remembers what should be served.", file_okay=False),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where `cifar up` remembers what it started the server with.", file_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a server serves; exit code 1 unless all of it is ready and is what was deployed."""
    # Of another server than that of this checkout, nothing is known here.
    if management_url == own_addresses().management:
        model_store, run_dir = model_store or MODEL_STORE, run_dir or RUN_DIR
    with ManagementClient(management_url) as management:
        found, strangers = read_status(management), read_other_models(management)
    differences = find_undeployed(strangers)
    if model_store is not None:
        started = None
        try:
            started = started_archives(run_dir) if run_dir else None
        except InvalidStateFile as error:  # what is served is known without it
            differences.append(str(error))
        differences += find_mismatches(found, model_store, started)
    if as_json:
        print_json({"versions": [asdict(version) for version in found], "differences": differences})
    else:
        console = Console()
        console.print(_table(found) if found else "No version is served.")
        for difference in differences:
            console.print(Text(difference, style="red"), soft_wrap=True)
    if differences or not found or any(version.ready_workers < max(1, version.workers) for version in found):
        raise typer.Exit(1)


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
