"""`cifar monitor`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cifar.common.addresses import own_addresses
from cifar.common.project import MONITOR_DIR, check_checkout
from cifar.monitoring.addresses import parse_endpoint
from cifar.monitoring.monitor import (
    ALERTMANAGER_CONFIG,
    PROMETHEUS,
    PROMETHEUS_CONFIG,
    START_TIMEOUT_S,
    Monitor,
    remember_folder,
)
from cifar.monitoring.programs import format_endpoint
from cifar.monitoring.targets import TARGETS, follow_metrics_address


def monitor(
    address: Annotated[str, typer.Option(help="Where Prometheus listens.")] = format_endpoint(PROMETHEUS),
    prometheus_config: Annotated[Path, typer.Option(help="prometheus.yml.", dir_okay=False)] = PROMETHEUS_CONFIG,
    alertmanager_config: Annotated[Path, typer.Option(help="alertmanager.yml.", dir_okay=False)] = ALERTMANAGER_CONFIG,
    monitor_dir: Annotated[Path, typer.Option(help="Data, logs, the log of alerts; kept by `down`.")] = MONITOR_DIR,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds to wait until they are ready.")] = START_TIMEOUT_S,
) -> None:
    """Start Prometheus, Alertmanager and a log of its messages; where they run, reload their files."""
    if prometheus_config == PROMETHEUS_CONFIG or alertmanager_config == ALERTMANAGER_CONFIG:
        check_checkout("cifar monitor, without configurations of your own,")
    console = Console(stderr=True)
    if prometheus_config == PROMETHEUS_CONFIG and follow_metrics_address(own_addresses()):
        console.print(f"{TARGETS} names the metrics_address of config.properties now.", soft_wrap=True, highlight=False)
    watch = Monitor(monitor_dir, prometheus_config, alertmanager_config, parse_endpoint(address, "--address"))
    remember_folder(monitor_dir)
    with console.status("Starting Prometheus and Alertmanager…"):
        programs = watch.start(timeout_s)
    lines = {program.name: program.url for program in reversed(programs)}
    if "Alert log" in lines:
        lines["Alert log"] = f"{monitor_dir / 'alerts.jsonl'}, a line for each message"
    for name, where in lines.items():
        console.print(f"{name:<13} {where}", soft_wrap=True, highlight=False)
