"""Lets a long loop end where it is safe when the user or the system asks it to stop."""

import signal
from types import FrameType, TracebackType
from typing import Self


class StopSignals:
    """While entered, SIGINT and SIGTERM set `received` instead of ending the process; the second one ends it.

    Example:
        with StopSignals() as stop:
            for batch in batches:
                if stop.received:
                    break
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
