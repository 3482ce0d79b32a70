"""One cell in one process: takes its lease, trains, and says how it ended.

Runs inside a Ray worker (`run_cell` is the task) and, for `study train`, in the caller's process.
Nothing here imports Ray: the word to stop comes from files and processes, so it arrives whatever
has become of Ray.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from study.cell import Cell, Execution, from_dict
from study.places import is_bucket, place
from study.records import DONE, write_failure
from study.secrets import hide
from sweeps.lease import LEASE, Lease, LeaseHeld, LeaseLost, holder_of

TRAIN = "study.train:train"
GRACE = 10.0  # seconds that a cell gets to save and stop once its driver is dead

# "crashed" is the driver's word for a worker that did not come back.
End = Literal["done", "diverged", "stopped", "held", "failed", "bad input", "disk", "crashed"]

# Known by name, so that a process that never met them need not import where they live.
_BAD_INPUT = {"CellError", "RecordError", "DataError", "StudyError"}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is handed.

    Attributes:
      cell: as `study.cell.to_dict` writes it.
      entry: "module:function" that trains, called as `study.train.train` is.
      driver: the lease of the driver; once it is gone the cell stops. None: nobody to watch.
    """

    cell: dict[str, Any]
    execution: dict[str, Any]
    folder: str
    study: str
    entry: str = TRAIN
    driver: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a task ended; `error` is one line."""

    end: End
    pid: int
    done: dict[str, Any] | None = None
    error: str | None = None


def run_cell(task: Task) -> Outcome:
    """Trains one cell under its lease. Returns whatever happens; only a crash does not."""
    with _watch(task.driver) as stop:
        return run_here(
            from_dict(task.cell),
            Execution(**task.execution),
            folder=place(task.folder),
            study=task.study,
            entry=task.entry,
            should_stop=stop.is_set,
        )


def run_here(
    cell: Cell,
    execution: Execution,
    *,
    folder: Path,
    study: str,
    entry: str = TRAIN,
    should_stop: Callable[[], bool],
) -> Outcome:
    """Trains `cell` into `folder` unless somebody else is at it.

    A cell that loses its lease ends without another write: the record is another process's then.
    """
    try:
        lease = Lease.acquire(folder / LEASE)
    except LeaseHeld as held:
        return _end("held", error=str(held))
    except OSError as error:
        text = f"cannot write {folder}: {error.strerror or error}; make room or choose another"
        return _end("disk", error=f"{text} --root and run again (what is recorded is kept)")

    def asked() -> bool:
        lease.check()
        return should_stop()

    with lease:
        try:
            train = load(entry)
            done = train(cell, execution, folder=folder, study=study, should_stop=asked)
        except LeaseLost as lost:
            return _end("held", error=str(lost))
        except Exception as error:
            if type(error).__name__ == "Stopped":
                return _end("stopped")
            if _of(error, _disk_is_full):
                return _end("disk", error=_disk_line(error, folder))
            bad = any(base.__name__ in _BAD_INPUT for base in type(error).__mro__)
            line = hide(" ".join(str(error).split()))
            line = line if bad and line else f"{type(error).__name__}: {line}".removesuffix(": ")
            with contextlib.suppress(Exception):  # a disk that just filled up
                if not (folder / DONE).exists():
                    write_failure(folder, error=line, trace=traceback.format_exc())
            return _end("bad input" if bad else "failed", error=line)
        return _end("diverged" if done["status"] == "diverged" else "done", done=done)


def load(entry: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def _end(end: End, **more: Any) -> Outcome:
    return Outcome(end=end, pid=os.getpid(), **more)


@contextlib.contextmanager
def _watch(driver: str | None) -> Any:
    """Sets the event that it yields when the driver lets go of its lease, or dies.

    Ray ends the workers of a dead driver too, but only where Ray itself is alive: a worker that
    outlived both would keep its cell from whoever runs the study again.
    """
    stop, over = threading.Event(), threading.Event()

    def look() -> None:
        assert driver is not None
        path = place(driver)
        while not over.wait(5.0 if is_bucket(path) else 0.5):
            if holder_of(path) is None:
                stop.set()
                break
        if stop.is_set() and path.exists() and not over.wait(GRACE):
            os._exit(1)

    if driver is not None:
        threading.Thread(target=look, name="driver watch", daemon=True).start()
    try:
        yield stop
    finally:
        over.set()


def _of(error: BaseException | None, is_so: Callable[[BaseException], bool]) -> bool:
    """Whether `error` or what caused it `is_so`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if is_so(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _disk_is_full(error: BaseException) -> bool:
    """Orbax and TensorStore say it in words only."""
    return (isinstance(error, OSError) and error.errno in _DISK) or (
        "No space left on device" in str(error) or "Disk quota exceeded" in str(error)
    )


def _disk_line(error: BaseException, folder: Path) -> str:
    if type(error).__name__ == "RecordError":
        return str(error)
    return (
        f"cannot write {folder}: no space left on device; make room or choose another --root "
        "and run again (what is recorded is kept)"
    )
