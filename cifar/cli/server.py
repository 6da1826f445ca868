"""`cifar up`, `cifar ready` and `cifar down`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cifar.cli.options import ConfigOption, RunDirOption, StoreOption
from cifar.common.addresses import read_addresses
from cifar.common.project import CONFIG, MODEL_STORE, RUN_DIR
from cifar.monitoring.monitor import Monitor, stop_all
from cifar.server.readiness import find_missing
from cifar.server.supervisor import end_supervisors, spawn_supervisor
from cifar.server.torchserve import START_TIMEOUT_S, TorchServe


def up(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=ARCHIVE", help="What to serve; none: every archive.")
    ] = None,
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds to wait until it serves.")] = START_TIMEOUT_S,
    supervise: Annotated[bool, typer.Option(help="Keep a process beside it that starts it again.")] = True,
) -> None:
    """Start TorchServe, unless it runs, and wait until it has answered an image."""
    console = Console(stderr=True)
    server = TorchServe(run_dir, config, model_store, models)
    begin = time.monotonic()
    with console.status("Starting TorchServe…"):
        ready = server.start(timeout_s, lambda message: console.print(message, soft_wrap=True, highlight=False))
    if supervise:
        spawn_supervisor(server)
    for model in ready:
        console.print(
            f"{model.name} {model.version} is ready: {model.workers} workers, {time.monotonic() - begin:.1f} s, "
            f"POST {server.addresses.inference}/predictions/{model.name}",
            soft_wrap=True,
            highlight=False,
        )


def ready(
    config: ConfigOption = CONFIG,
    run_dir: RunDirOption = RUN_DIR,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds for each of three answers.")] = 3.0,
) -> None:
    """Say whether the default version answers: exit code 0, or 1 and what is missing. No metric counts this."""
    missing = find_missing(read_addresses(config), run_dir / "key_file.json", timeout_s)
    if missing is not None:
        typer.echo(f"Not ready: {missing}", err=True)
        raise typer.Exit(1)
    typer.echo("Ready.")


def down(
    run_dir: RunDirOption = RUN_DIR,
    monitor_dir: Annotated[
        Path | None,
        typer.Option(
            help="Stop the monitor of this folder only. By default: all that `cifar monitor` of this checkout started, "
            "and none with another --run-dir than the checkout's.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Stop the TorchServe that `up` started, and remove what it made at run time; stop what `monitor` started."""
    console = Console(stderr=True)
    # First, or it would see the server go.
    if monitor_dir is not None:
        monitors = {monitor_dir: Monitor(monitor_dir).stop()}
    else:
        monitors = stop_all() if run_dir.resolve() == RUN_DIR.resolve() else {}
    for folder, programs in monitors.items():
        if programs:
            message = f"Stopped: {', '.join(programs)}. What was recorded stays in {folder}."
            console.print(message, soft_wrap=True, highlight=False)
    end_supervisors(run_dir)
    stopped = TorchServe(run_dir).stop()
    console.print("TorchServe has stopped." if stopped else "No TorchServe of this checkout was running.")
