"""Ctrl-C and its kin: the first asks for an orderly end, the second quits at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Self

from sweeps.runner.attempts import Outcome

INTERRUPTED = 130  # exit code
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopFlag:
    """Asks for an orderly end: set by a signal, a mark in the records or a preemption notice.

    Attributes:
      reason: the first one given: "stopped", "preempted" or "cancelled".
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason: Outcome | None = None

    def set(self, reason: Outcome) -> None:
        if self.reason is None:
            self.reason = reason
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class Stop:
    """Listens within a `with`, in the main thread only, as Python does.

    Attributes:
      asked: whether a signal came.
      flag: set by the first signal: "stopped" by Ctrl-C, "preempted" by SIGTERM and SIGHUP.
      raises: while true, the first signal raises KeyboardInterrupt, for code that does not look.
      before_quitting: called when the second signal comes, right before the process ends.
    """

    def __init__(self) -> None:
        self.flag = StopFlag()
        self.asked = False
        self.raises = False
        self.before_quitting: Callable[[], None] | None = None
        self._kept: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Takes the signals, again if a library took them since."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.signal(number, self._on_signal)
                self._kept.setdefault(number, before)

    def _on_signal(self, number: int, frame: Any) -> None:
        del frame
        if self.asked:
            try:
                if self.before_quitting is not None:
                    self.before_quitting()
            finally:
                os._exit(INTERRUPTED)
        self.asked = True
        self.flag.set("stopped" if number == signal.SIGINT else "preempted")
        if self.raises:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)
