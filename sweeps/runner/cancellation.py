"""What a user asks of a cell while nobody may be listening: a file in its record.

    <root>/<study>/<cell id>/CANCELLED.json   not to be run, until `study retry` takes it away

A driver, the workers of the cell and whoever comes after them read the same file, so it works
from another process, from another machine, and after a driver has died.
"""

from __future__ import annotations

import time
from pathlib import Path

from study.records.record import FAILED, read_json, write_json
from study.records.storage import mkdir, unlink

CANCELLED = "CANCELLED.json"


def cancel(folder: Path) -> None:
    """The cell stops if it runs, keeps what it has, and does not start again."""
    mkdir(folder)
    write_json(folder / CANCELLED, {"time": round(time.time(), 3)})


def is_cancelled(folder: Path) -> bool:
    return read_json(folder / CANCELLED) is not None


def clear(folder: Path) -> None:
    """The cell is as if it had been neither cancelled nor tried in vain."""
    unlink(folder / CANCELLED)
    unlink(folder / FAILED)
