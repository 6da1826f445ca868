"""Turns the `main` of a stage into a command: overrides in, exit code out, no traceback for what a user can mend."""

import sys
from collections.abc import Callable

import typer
from rich.console import Console

from training.console import accept_any_text
from training.errors import TrainingError

console = Console()


def run_stage(main: Callable[..., None]) -> None:
    """Run `main` as a command of its own; a TrainingError or a failing disk becomes one message and exit code 1."""
    accept_any_text()
    try:
        typer.run(main)
    except (TrainingError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
