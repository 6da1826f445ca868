"""Shows what a deployment is doing: a line for each step, with its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


class Step:
    """A step that is being done; what it notes stands behind its name when it is done."""

    def __init__(self) -> None:
        self.noted = ""

    def note(self, text: str) -> None:
        """Say what came of it."""
        self.noted = text


class Steps:
    """Prints steps as they end; on a terminal it shows the one that is being done, too."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time what is done inside; an exception is shown as a failure and propagates."""
        step, begin = Step(), time.monotonic()
        try:
            with self._console.status(f"{name}…"):
                yield step
        except BaseException:
            self._print("failed", "red", name, begin, "")
            raise
        self._print("done", "green", name, begin, step.noted)

    def say(self, text: str) -> None:
        """Print a line that is no step."""
        self._console.print(Text(text), soft_wrap=True)

    def _print(self, outcome: str, color: str, name: str, begin: float, noted: str) -> None:
        elapsed = f"{time.monotonic() - begin:7.2f} s  "
        line = Text.assemble(elapsed, (f"{outcome:<6} ", color), name, f": {noted}" if noted else "")
        self._console.print(line, soft_wrap=True)
