"""The word to stop, as it reaches a process that trains: from files, whatever has become of Ray."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study.records.storage import is_bucket, resolve
from sweeps.runner.cancellation import is_cancelled
from sweeps.runner.lease_file import holder_of

EVERY = 0.5  # seconds between two looks
EVERY_IN_A_BUCKET = 5.0  # where each look is some requests, and each request is paid for
GRACE = 10.0  # seconds that a cell gets to save and stop once its driver is dead


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a process that trains looks at.

    Attributes:
      driver: the lease of the driver. Let go of, the cell stops and saves; that of a dead driver
        gives it `GRACE` to do so. None: nobody to watch.
      cell: the folder of the record, where a mark may say that the cell is cancelled.
      lease: of the cell, when another process than this one holds it for us. Once it is not
        `token`'s any more the record is not ours, and this process ends without another write.
    """

    driver: str | None
    cell: str
    lease: str | None = None
    token: str = ""


@contextlib.contextmanager
def watch(what: Watched) -> Iterator[threading.Event]:
    """Sets the event that it yields when the cell is to stop.

    Ray ends the workers of a dead driver too, but only where Ray itself is alive: a worker that
    outlived both would keep its cell from whoever runs the study again.
    """
    stop, over = threading.Event(), threading.Event()
    every = EVERY_IN_A_BUCKET if is_bucket(resolve(what.cell)) else EVERY

    def look() -> None:
        orphan = False
        while not over.wait(every):
            if what.lease is not None and not _is_ours(resolve(what.lease), what.token):
                os._exit(1)
            if is_cancelled(resolve(what.cell)):
                stop.set()
            if not orphan and what.driver is not None and holder_of(resolve(what.driver)) is None:
                stop.set()
                orphan = resolve(what.driver).exists()
                if orphan and not over.wait(GRACE):
                    os._exit(1)

    threading.Thread(target=look, name="watch", daemon=True).start()
    try:
        yield stop
    finally:
        over.set()


def _is_ours(lease: Path, token: str) -> bool:
    holder = holder_of(lease)
    return holder is not None and holder.token == token
