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
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from study.config import Cell, Execution, from_dict
from study.errors import UserError
from study.records.record import DONE, write_failure
from study.records.redact import redact
from study.records.storage import resolve
from sweeps.runner.lease_bucket import BucketLease
from sweeps.runner.lease_file import LEASE, Lease, LeaseHeld, LeaseLost
from sweeps.runner.logs import logged
from sweeps.runner.stop_watch import Watched, watch

TRAIN = "study.training.loop:train"

# "crashed" is the driver's word for a worker that did not come back; "preempted" and "unplaced"
# are said of slices only.
End = Literal[
    "done",
    "diverged",
    "stopped",
    "held",
    "failed",
    "bad input",
    "disk",
    "crashed",
    "preempted",
    "unplaced",
]

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is handed.

    Attributes:
      cell: as `study.config.cell.to_dict` writes it.
      entry: "module:function" that trains, called as `study.training.loop.train` is.
      driver: the lease of the driver; once it is gone the cell stops. None: nobody to watch.
      slice: the kind of machine; None is the process itself.
    """

    cell: dict[str, Any]
    execution: dict[str, Any]
    folder: str
    group: str
    run_name: str | None = None
    entry: str = TRAIN
    driver: str | None = None
    slice: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a task ended; `error` is one line, `trace` where it came from."""

    end: End
    pid: int
    done: dict[str, Any] | None = None
    error: str | None = None
    trace: str = ""


def run_cell(task: Task) -> Outcome:
    """Trains one cell under its lease. Returns whatever happens; only a crash does not."""
    folder = resolve(task.folder)
    with watch(Watched(driver=task.driver, cell=task.folder)) as stop, logged(folder):
        return run_here(
            from_dict(task.cell),
            Execution(**task.execution),
            folder=folder,
            group=task.group,
            run_name=task.run_name,
            entry=task.entry,
            should_stop=stop.is_set,
        )


def run_here(
    cell: Cell,
    execution: Execution,
    *,
    folder: Path,
    group: str,
    run_name: str | None = None,
    entry: str = TRAIN,
    should_stop: Callable[[], bool],
) -> Outcome:
    """Trains `cell` into `folder` unless somebody else is at it.

    A cell that loses its lease ends without another write: the record is another process's then.
    """
    lease = take(folder)
    if isinstance(lease, Outcome):
        return lease

    def asked() -> bool:
        lease.check()
        return should_stop()

    with lease:
        try:
            train = load(entry)
            done = train(
                cell,
                execution,
                folder=folder,
                group=group,
                run_name=run_name,
                should_stop=asked,
            )
        except Exception as error:
            outcome = outcome_of(error, folder)
            note(outcome, folder)
            return outcome
        return ended(done)


def take(folder: Path) -> Lease | BucketLease | Outcome:
    """The lease of the cell whose record is `folder`, or why it cannot be had."""
    try:
        return Lease.acquire(folder / LEASE)
    except LeaseHeld as held:
        return _end("held", error=str(held))
    except OSError as error:
        text = f"cannot write {folder}: {error.strerror or error}; make room or choose another"
        return _end("disk", error=f"{text} --root and run again (what is recorded is kept)")


def ended(done: dict[str, Any]) -> Outcome:
    """Of a cell that trained to its end."""
    return _end("diverged" if done["status"] == "diverged" else "done", done=done)


def outcome_of(error: Exception, folder: Path) -> Outcome:
    """What it means that training raised `error`."""
    if isinstance(error, LeaseLost):
        return _end("held", error=str(error))
    if type(error).__name__ == "Stopped":
        return _end("stopped")
    if _of(error, _disk_is_full):
        return _end("disk", error=_disk_line(error, folder))
    bad = isinstance(error, UserError)
    line = redact(" ".join(str(error).split()))
    line = line if bad and line else f"{type(error).__name__}: {line}".removesuffix(": ")
    trace = "".join(traceback.format_exception(error))
    return _end("bad input" if bad else "failed", error=line, trace=trace)


def note(outcome: Outcome, folder: Path) -> None:
    """Leaves a failure in the record."""
    if outcome.end in ("failed", "bad input"):
        with contextlib.suppress(Exception):  # a disk that just filled up
            if not (folder / DONE).exists():
                write_failure(folder, error=outcome.error or "", trace=outcome.trace)


def load(entry: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def _end(end: End, **more: Any) -> Outcome:
    return Outcome(end=end, pid=os.getpid(), **more)


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
