"""Deploys and rolls back versions under load, and counts what the clients lost: it must be nothing.

Usage: make archive; python -m benchmarks.deploys [--rounds N] [--clients N] [--output FILE]

A server of its own begins with version 1.0. Each round deploys the same archive under another version by `cifar deploy`
and goes back by `cifar rollback`, while clients ask for predictions without a pause. A request counts as lost where the
answer is no 200 with a prediction and the version that made it; an answer counts as stale where it comes from another
version than the one whose deployment was reported done before.
"""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.machine import processor
from benchmarks.own_server import write_free_config
from benchmarks.steady_load import SteadyLoad
from cifar.common.console import run_stage
from cifar.common.files import atomic_write
from cifar.common.project import MODEL_STORE, ROOT
from cifar.server.torchserve import TorchServe
from training.errors import TrainingError

RESULTS = ROOT / "benchmarks" / "results" / "deploys.md"


@dataclass(frozen=True)
class Changed:
    """One deployment or rollback.

    Attributes:
        command: deploy or rollback.
        version: that answers since.
        begin, done: of the command, seconds of time.monotonic().
        switch: seconds that its step "make it the default" took.
    """

    command: str
    version: str
    begin: float
    done: float
    switch: float


def main(
    archive: Annotated[Path, typer.Option(help="what is deployed")] = MODEL_STORE / "cifar-1.0.mar",
    rounds: Annotated[int, typer.Option(help="deployments, and as many rollbacks", min=1)] = 10,
    clients: Annotated[int, typer.Option(help="that ask all the time", min=1)] = 32,
    output: Annotated[Path, typer.Option(help="the table to write")] = RESULTS,
) -> None:
    """Deploy and roll back under load."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        store = folder / "model_store"
        store.mkdir()
        shutil.copy(archive, store / "cifar-1.0.mar")
        server = TorchServe(folder / "run", write_free_config(folder), store)
        server.start()
        changes: list[Changed] = []
        try:
            with SteadyLoad(server.addresses.inference, clients) as load:
                time.sleep(2)
                for number in track(range(1, rounds + 1), "Deploying and rolling back"):
                    changes.append(_change(server, "deploy", f"1.{number}", archive))
                    changes.append(_change(server, "rollback", "1.0"))
                time.sleep(2)
        finally:
            server.stop()
    stale = _count_stale(load, changes)
    with atomic_write(output) as temporary:
        temporary.write_text(_report(load, changes, stale), encoding="utf-8")
    typer.echo(output.read_text(encoding="utf-8"))
    if load.failures or stale:
        raise TrainingError(f"{len(load.failures)} requests lost, {stale} stale; the first: {load.failures[:3]}")


def _change(server: TorchServe, command: str, version: str, archive: Path | None = None) -> Changed:
    arguments = [str(archive), "--version", version] if archive is not None else []
    where = ["--config", server.config, "--model-store", server.model_store, "--run-dir", server.run_dir]
    begin = time.monotonic()
    call = [sys.executable, "-m", "cifar.cli.main", command, *arguments, *map(str, where)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(f"cifar {command} failed: {done.stdout}{done.stderr}")
    switch = re.search(r"([\d.]+) s +done +make it the default", done.stdout)
    if switch is None:
        raise TrainingError(f"cifar {command} reports no switch: {done.stdout}")
    return Changed(command, version, begin, time.monotonic(), float(switch[1]))


def _count_stale(load: SteadyLoad, changes: list[Changed]) -> int:
    """Count answers of another version after a change was reported done.

    A rollback returns at once: what was sent before it was done may still be answered by the version that it left.
    """
    stale = 0
    ends = [change.begin for change in changes[1:]] + [float("inf")]
    for change, end in zip(changes, ends, strict=True):
        for asked in load.asked:
            since = asked.answered if change.command == "deploy" else asked.sent
            stale += change.done <= since and asked.answered < end and asked.version != change.version
    return stale


def _report(load: SteadyLoad, changes: list[Changed], stale: int) -> str:
    begin, end = min(asked.sent for asked in load.asked), max(asked.answered for asked in load.asked)
    times = {
        command: [change.done - change.begin for change in changes if change.command == command]
        for command in ("deploy", "rollback")
    }
    switches = [change.switch for change in changes if change.command == "rollback"]
    during = [asked.answered - asked.sent for asked in load.asked]
    by_version: dict[str, int] = {}
    for asked in load.asked:
        by_version[asked.version] = by_version.get(asked.version, 0) + 1
    answered = ", ".join(f"{version}: {count:,}" for version, count in sorted(by_version.items()))
    return (
        "# Deployments and rollbacks under load\n\n"
        f"{os.cpu_count()} × {processor()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}. "
        f"{load.clients} clients, one image a request, raw bytes, on the same cores. Made by "
        "`python -m benchmarks.deploys`.\n\n"
        "| what | figure |\n|---|---:|\n"
        f"| deployments, rollbacks | {len(times['deploy'])}, {len(times['rollback'])} |\n"
        f"| requests | {len(load.asked):,} in {end - begin:.0f} s |\n"
        f"| **lost** | **{len(load.failures)}** |\n"
        f"| **answered by a version that had been replaced** | **{stale}** |\n"
        f"| `cifar deploy`, median (fastest to slowest) | {_spread(times['deploy'])} |\n"
        f"| `cifar rollback`, with the start of its process | {_spread(times['rollback'])} |\n"
        f"| the rollback itself: the default before is the default again | {_spread(switches)} |\n"
        f"| slowest answer; median | {max(during):.2f} s; {statistics.median(during) * 1000:.0f} ms |\n\n"
        f"Answers by version: {answered}.\n"
    )


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    run_stage(main)
