"""Measures what counting costs: the same network served with its metrics, and without.

Usage: make archive; python -m benchmarks.telemetry [--rounds N] [--seconds S] [--output FILE]

Both stand in one TorchServe and take turns within one run; the second one's handler counts nothing. The ratio of each
round is taken first, then median and spread.
"""

import os
import platform
import shutil
import statistics
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.machine import processor
from benchmarks.own_server import write_free_config
from benchmarks.wrk import load, write_script
from cifar.archives.build import build_archive
from cifar.common.console import run_stage
from cifar.common.files import atomic_write
from cifar.common.project import HANDLER, MODEL_STORE, ROOT
from cifar.server.torchserve import TorchServe
from training.errors import TrainingError

RESULTS = ROOT / "benchmarks" / "results" / "telemetry.md"
CONNECTIONS = (1, 16, 64)
_COUNTING, _SILENT = "Telemetry(context.metrics, ", "Telemetry(None, "


def main(
    archive: Annotated[Path, typer.Option(help="whose network is served")] = MODEL_STORE / "cifar-1.0.mar",
    rounds: Annotated[int, typer.Option(help="turns of each side", min=3)] = 7,
    seconds: Annotated[int, typer.Option(help="of each turn", min=2)] = 4,
    output: Annotated[Path, typer.Option(help="the table to write")] = RESULTS,
) -> None:
    """Load both in turns at 1, 16 and 64 connections."""
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        store = folder / "model_store"
        store.mkdir()
        models = _pack_both(archive, folder, store)
        server = TorchServe(folder / "run", write_free_config(folder), store, models)
        server.start()
        try:
            script = write_script(folder)
            for version in ("counting", "silent"):  # warm
                load(server.addresses.inference, version, 16, 2, script)
            turns = [
                (version, connections)
                for _ in range(rounds)
                for connections in CONNECTIONS
                for version in ("counting", "silent")
            ]
            for version, connections in track(turns, "wrk"):
                measured = load(server.addresses.inference, version, connections, seconds, script)
                rates.setdefault((version, connections), []).append(measured.requests_per_s)
        finally:
            server.stop()
    with atomic_write(output) as temporary:
        temporary.write_text(_report(rates, rounds, seconds), encoding="utf-8")
    typer.echo(output.read_text(encoding="utf-8"))


def _pack_both(archive: Path, folder: Path, store: Path) -> list[str]:
    """Pack the network twice, with this checkout's handler and with one that counts nothing."""
    model = folder / "model.pt"
    with zipfile.ZipFile(archive) as content:
        model.write_bytes(content.read("model.pt"))
    silent = folder / "silent"
    shutil.copytree(ROOT / "handler", silent, ignore=shutil.ignore_patterns("__pycache__"))
    source = (silent / "cifar_handler.py").read_text(encoding="utf-8")
    if source.count(_COUNTING) != 1:
        raise TrainingError(
            f"handler/cifar_handler.py has {_COUNTING!r} {source.count(_COUNTING)} times; expected once"
        )
    (silent / "cifar_handler.py").write_text(source.replace(_COUNTING, _SILENT), encoding="utf-8")
    for version, handler in (("counting", HANDLER), ("silent", silent)):
        build_archive(model, version, store / f"cifar-{version}.mar", handler)
    return ["cifar=cifar-counting.mar", "cifar=cifar-silent.mar"]


def _report(rates: dict[tuple[str, int], list[float]], rounds: int, seconds: int) -> str:
    lines = [
        "# What counting costs",
        "",
        f"{os.cpu_count()} × {processor()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}. "
        f"One image a request, raw bytes; {rounds} rounds of {seconds} s of each side in turns. Made by "
        "`python -m benchmarks.telemetry`.",
        "",
        "| connections | requests/s with metrics | without | ratio: median (lowest to highest round) |",
        "|---:|---:|---:|---:|",
    ]
    for connections in CONNECTIONS:
        counting, silent = rates["counting", connections], rates["silent", connections]
        ratios = sorted(mine / theirs for mine, theirs in zip(counting, silent, strict=True))
        lines.append(
            f"| {connections} | {statistics.median(counting):,.0f} | {statistics.median(silent):,.0f} "
            f"| **{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_stage(main)
