"""Watching records while somebody changes them: when there is nothing left to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from study.records.storage import listdir
from sweeps.runner.cell_status import Entry
from sweeps.runner.lease_file import DRIVER, LEASE, holder_of
from sweeps.runner.lease_owner import Holder

# Seconds without a sign of life before a watch ends: between two cells, or two clusters, nobody
# may hold a lease for a moment.
PATIENCE = 5.0


def driver_of(folder: Path) -> Holder | None:
    """Who runs the study whose records are in `folder`; None where no driver is alive."""
    paths = [path / LEASE for path in listdir(folder) if path.name.startswith(DRIVER)]
    return next((holder for path in paths if (holder := holder_of(path)) is not None), None)


def readings(
    read: Callable[[], Sequence[Entry]], folder: Path, *, every: float
) -> Iterator[Sequence[Entry]]:
    """Reads entries again and again for as long as they may change; yields each reading.

    Ends when every cell is over or cancelled, or when nobody runs one of them and no driver is
    alive that would start or retry one.

    Arguments:
      read: reads the entries.
      folder: of the study's records, in which drivers hold their leases.
      every: seconds between two readings.
    """
    alone: float | None = None  # since when nobody was at work
    while True:
        entries = read()
        yield entries
        if not any(e.to_run for e in entries):
            return
        now = time.monotonic()
        if any(e.holder is not None for e in entries) or driver_of(folder) is not None:
            alone = None
        elif alone is None:
            alone = now
        elif now - alone >= PATIENCE:
            return
        time.sleep(every)
