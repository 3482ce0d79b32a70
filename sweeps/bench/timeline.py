"""Virtual time for threads that take turns, so that code which blocks can be simulated as it is."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence

_STACK_BYTES = 1 << 19


class Timeline:
    """Runs functions in threads, exactly one at a time: each runs until its next `sleep`.

    The order depends on the virtual times only, never on the machine.

    Attributes:
      now: seconds since the start.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, threading.Semaphore]] = []
        self._number = itertools.count()
        self._over = threading.Event()
        self._error: BaseException | None = None

    def run(self, functions: Sequence[Callable[[], None]]) -> None:
        """Runs all functions, which start at time 0, until all have returned or one raises."""
        before = threading.stack_size(_STACK_BYTES)
        try:
            for function in functions:
                turn = threading.Semaphore(0)
                heapq.heappush(self._sleepers, (0.0, next(self._number), turn))
                threading.Thread(target=self._call, args=(function, turn), daemon=True).start()
        finally:
            threading.stack_size(before)
        self._wake_next()
        self._over.wait()
        if self._error is not None:
            raise self._error

    def sleep(self, seconds: float) -> None:
        """Lets the others run for `seconds`; called by one of the functions."""
        turn = threading.Semaphore(0)
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._number), turn))
        self._wake_next()
        turn.acquire()

    def _call(self, function: Callable[[], None], turn: threading.Semaphore) -> None:
        turn.acquire()
        try:
            function()
        except BaseException as error:
            self._error = error
            self._over.set()
            return
        self._wake_next()

    def _wake_next(self) -> None:
        if not self._sleepers:
            self._over.set()
            return
        self.now, _, turn = heapq.heappop(self._sleepers)
        turn.release()
