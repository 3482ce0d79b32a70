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
    alone: float | None = None  # since when nobody has trained a cell
    while True:
        statuses = read()
        yield statuses
        if not any(s.runnable for s in statuses):
            return
        now = time.monotonic()
        waits = any(s.runnable and s.wait_until > time.time() for s in statuses)
        if waits or any(s.owner is not None for s in statuses):
            alone = None
        elif alone is None:
            alone = now
        elif now - alone >= PATIENCE_S:
            return
        time.sleep(every)
