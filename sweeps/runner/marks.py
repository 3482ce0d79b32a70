"""What a user asks of cells and runs while nobody may be listening: files in the records.

    <root>/<group>/<cell id>/CANCELLED.json   do not train this cell until `study retry`
    <root>/<group>/.stop/<run id>             workers of this `study run`: save and stop

Workers look at them every few seconds, so they work from another process or another machine, and
whatever has become of Ray.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from study.records.record import FAILED, RecordError
from study.records.storage import mkdir, unlink
from sweeps.runner.attempts import Attempts
from sweeps.runner.cell_status import CellStatus, close_lost, parse_json
from sweeps.runner.lease import Lease
from sweeps.runner.store import ATTEMPTS, CANCELLED, Store, open_store

STOP = ".stop"


def cancel(folder: Path) -> None:
    """The cell in `folder` stops if it runs, keeps what it has, and does not start again."""
    mkdir(folder)
    open_store(folder.parent).write(folder.name, CANCELLED, {"time": round(time.time(), 3)})


def retry(status: CellStatus) -> None:
    """Gives a failed or cancelled cell new budgets; it continues from its last checkpoint.

    Raises:
      RecordError: somebody trains it.
    """
    store, cell_id = open_store(status.folder.parent), status.cell.id
    lease = Lease.take(store, cell_id, "retry", status.lease)
    if lease is None:
        raise RecordError(f"{cell_id} is being trained; nothing to retry")
    attempts = Attempts.parse(store.read(cell_id, ATTEMPTS))
    if attempts.all:
        failure = parse_json(store.read(cell_id, FAILED))
        close_lost(attempts, failure, status.lease).clear().save(store, cell_id)
    unlink(status.folder / CANCELLED)
    unlink(status.folder / FAILED)
    lease.release()


def request_stop(folder: Path, run_id: str) -> None:
    """Asks the workers of one run, whose records are in `folder`, to save and stop."""
    open_store(folder).write(STOP, run_id, {"time": round(time.time(), 3)})


def stop_requested(store: Store, run_id: str | None) -> bool:
    return run_id is not None and store.read(STOP, run_id) is not None


def clear_stop(folder: Path, run_id: str) -> None:
    with contextlib.suppress(Exception):  # a mark that is left behind stops no other run
        unlink(folder / STOP / run_id)
