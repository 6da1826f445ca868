"""The drill: breaks a service of its own on purpose, and measures how soon each alert reaches a webhook.

Usage: make data archive; python -m drill [--only NAME]
"""

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cifar.common.console import console, run_stage
from cifar.common.errors import CifarError
from cifar.common.files import atomic_write
from cifar.common.project import MODEL_STORE, ROOT
from drill.report import report
from drill.run import Outcome, play
from drill.sandbox import DrillFailed, Sandbox, run_sandbox
from drill.scenarios import SCENARIOS, Inputs
from drill.time_compression import TimeCompression
from training.corruptions import corrupt
from training.data import DATA_FILE, load_dataset

REPORT = ROOT / "docs" / "drill.md"
WEIGHTS = ROOT / "training" / "pretrained" / "1.0" / "best_cnn_model.pth"
CLIENTS, RATE = 8, 50.0
QUIET_S = 60.0


def main(
    archive: Annotated[Path, typer.Option(help="what is served at first")] = MODEL_STORE / "cifar-1.0.mar",
    data: Annotated[Path, typer.Option(help="the prepared data set, whose test images are sent")] = DATA_FILE,
    only: Annotated[list[str] | None, typer.Option(help="play this scenario only, and write no report")] = None,
    output: Annotated[Path, typer.Option(help="the report")] = REPORT,
) -> None:
    """Play all scenarios; the exit code is 1 where an alert did not do what it should."""
    # As by Ctrl-C, everything is ended and removed; a background job does not even hear that.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    unknown = set(only or []) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        known = ", ".join(scenario.name for scenario in SCENARIOS)
        raise DrillFailed(f"there is no scenario {', '.join(sorted(unknown))}; there are {known}")
    chosen = [scenario for scenario in SCENARIOS if not only or scenario.name in only]
    images = load_dataset(data).test_images
    inputs = Inputs(WEIGHTS, images, corrupt(images, "gaussian_noise", 5, 0))
    compression = TimeCompression()
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="cifar-drill-") as folder,
        run_sandbox(Path(folder), archive, images, compression, clients=CLIENTS, rate=RATE) as sandbox,
    ):
        with console.status(f"clean traffic for {QUIET_S:.0f} s"):
            _stay_quiet(sandbox)
        for scenario in chosen:
            with console.status(scenario.title) as status:
                outcomes.append(play(scenario, sandbox, inputs, status.update))
            console.print(_line(outcomes[-1]), soft_wrap=True)
    console.print(_table(outcomes))
    if not only:
        with atomic_write(output) as temporary:
            temporary.write_text(report(outcomes, QUIET_S, RATE, compression), encoding="utf-8")
    failed = [outcome.scenario.name for outcome in outcomes if not outcome.passed]
    if failed:
        raise DrillFailed(f"not as expected: {', '.join(failed)}")


def _stay_quiet(sandbox: Sandbox) -> None:
    time.sleep(QUIET_S)
    came = {notification.alert for notification in sandbox.alerts.read()}
    if came:
        raise DrillFailed(f"clean traffic brought {', '.join(sorted(came))}")


def _line(outcome: Outcome) -> Text:
    notified = ", ".join(f"{alert} after {seconds:.0f} s" for alert, seconds in sorted(outcome.notified.items()))
    cleared = "not ended" if outcome.cleared is None else f"ended after {outcome.cleared:.0f} s"
    others = f"; unexpected: {', '.join(sorted(outcome.unexpected))}" if outcome.unexpected else ""
    color = "green" if outcome.passed else "red"
    return Text.assemble((f"{outcome.scenario.name:<11}", color), f" {notified or 'nothing'}; {cleared}{others}")


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("fault", "alert", "notified after", "ended after", title="drill")
    for outcome in outcomes:
        for alert in sorted(outcome.scenario.alerts):
            notified = f"{outcome.notified[alert]:.0f} s" if alert in outcome.notified else "[red]never"
            cleared = "[red]never" if outcome.cleared is None else f"{outcome.cleared:.0f} s"
            table.add_row(outcome.scenario.name, alert, notified, cleared)
    return table


if __name__ == "__main__":
    try:
        run_stage(main)
    except CifarError as error:
        console.print(Text(str(error), style="red"), soft_wrap=True)
        sys.exit(1)
