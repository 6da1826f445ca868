"""Measures what serving one version costs against another: requests a second and latency, by wrk.

Usage: make archive; make archive VERSION=2.0; python -m benchmarks.versions [--rounds N] [--seconds S] [--output FILE]

Both versions stand in one TorchServe and take turns within one run, because times of two runs do not compare; each
request is one image as raw bytes. The ratio of each round is taken first, then median and spread. wrk (Debian's
package) sends, on the same machine: the numbers are of this machine with its load, only the ratios hold elsewhere.
"""

import os
import platform
import statistics
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.machine import processor
from benchmarks.own_server import write_free_config
from benchmarks.wrk import load as load_by_wrk
from benchmarks.wrk import write_script
from cifar.common.console import run_stage
from cifar.common.files import atomic_write
from cifar.common.project import MODEL_STORE, ROOT
from cifar.server.torchserve import TorchServe

RESULTS = ROOT / "benchmarks" / "results" / "versions.md"
CONNECTIONS = (1, 16, 64)


@dataclass
class Load:
    """What one version gave under one number of connections, by round."""

    requests_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def main(
    first: Annotated[str, typer.Option(help="a version in the model store")] = "1.0",
    second: Annotated[str, typer.Option(help="the one it is compared with")] = "2.0",
    rounds: Annotated[int, typer.Option(help="turns of each side", min=3)] = 5,
    seconds: Annotated[int, typer.Option(help="of each turn", min=2)] = 4,
    output: Annotated[Path, typer.Option(help="the table to write")] = RESULTS,
) -> None:
    """Load both versions in turns at 1, 16 and 64 connections."""
    loads = {(version, connections): Load() for connections in CONNECTIONS for version in (first, second)}
    turns = [
        (version, connections) for _ in range(rounds) for connections in CONNECTIONS for version in (first, second)
    ]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        models = [f"cifar=cifar-{version}.mar" for version in (first, second)]
        server = TorchServe(folder / "run", write_free_config(folder), MODEL_STORE, models)
        server.start()
        try:
            script = write_script(folder)
            for version in (first, second):  # warm
                load_by_wrk(server.addresses.inference, version, 16, 2, script)
            for version, connections in track(turns, "wrk"):
                found = load_by_wrk(server.addresses.inference, version, connections, seconds, script)
                load = loads[version, connections]
                for values, value in zip((load.requests_per_s, load.p50_ms, load.p99_ms), found, strict=True):
                    values.append(value)
        finally:
            server.stop()
    with atomic_write(output) as temporary:
        temporary.write_text(_report(loads, first, second, rounds, seconds), encoding="utf-8")
    typer.echo(output.read_text(encoding="utf-8"))


def _report(loads: dict[tuple[str, int], Load], first: str, second: str, rounds: int, seconds: int) -> str:
    lines = [
        f"# Version {second} against version {first}, served",
        "",
        f"{os.cpu_count()} × {processor()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}. "
        f"One image a request, raw bytes; {rounds} rounds of {seconds} s of each side in turns. Made by "
        "`python -m benchmarks.versions`.",
        "",
        f"| connections | {first}: requests/s, p50, p99 | {second}: requests/s, p50, p99 "
        "| ratio of requests/s: median (lowest to highest round) |",
        "|---:|---:|---:|---:|",
    ]
    for connections in CONNECTIONS:
        one, other = loads[first, connections], loads[second, connections]
        pairs = zip(other.requests_per_s, one.requests_per_s, strict=True)
        ratios = sorted(mine / theirs for mine, theirs in pairs)
        lines.append(
            f"| {connections} | {_cell(one)} | {_cell(other)} "
            f"| **{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def _cell(load: Load) -> str:
    rate, p50, p99 = (statistics.median(values) for values in (load.requests_per_s, load.p50_ms, load.p99_ms))
    return f"{rate:,.0f}, {p50:.1f} ms, {p99:.1f} ms"


if __name__ == "__main__":
    run_stage(main)
