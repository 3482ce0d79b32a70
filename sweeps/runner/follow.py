"""Watching records while workers change them: when there is nothing left to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from sweeps.runner.cell_status import CellStatus

# Seconds without a lease before a watch ends: nobody holds one while Ray starts, and workers that
# wait for a cell look for one every ten seconds in a bucket.
PATIENCE_S = 15.0


def readings(
    read: Callable[[], Sequence[CellStatus]], *, every: float
) -> Iterator[Sequence[CellStatus]]:
    """Reads statuses again and again for as long as they may change; yields each reading.

    Ends when no cell is left to run, or when nobody has trained one for a while.

    Arguments:
      read: reads the statuses.
      every: seconds between two readings.
    """
    alone = time.monotonic()  # since when nobody has trained a cell
    while True:
        statuses = read()
        yield statuses
        left = [s for s in statuses if s.runnable]
        if any(s.owner is not None or s.wait_until > time.time() for s in left):
            alone = time.monotonic()
        if not left or time.monotonic() - alone >= PATIENCE_S:
            return
        time.sleep(every)
