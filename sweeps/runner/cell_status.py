"""The ledger: where every cell of a study stands, read from its records and from nothing else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from study.config import Cell
from study.records.metrics_log import CellProgress, read_progress
from study.records.record import CELL, DONE, FAILED, RecordError, read_json
from study.records.storage import is_bucket
from sweeps.runner.cancellation import is_cancelled
from sweeps.runner.lease_file import LEASE, Holder, holder_of
from sweeps.study import Study

State = Literal["done", "diverged", "failed", "cancelled", "running", "interrupted", "waiting"]
STATES: tuple[State, ...] = get_args(State)
OVER: tuple[State, ...] = ("done", "diverged")  # never entered again


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where one cell stands.

    Attributes:
      progress: from the tail of its metrics; of an ended cell, the end.
      done: the content of DONE.json, or {}.
      error: one line, of a failed cell.
      holder: who runs it, of a running cell.
    """

    cell: Cell
    folder: Path
    state: State
    progress: CellProgress
    done: dict[str, Any]
    error: str | None = None
    holder: Holder | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def to_run(self) -> bool:
        """Whether a sweep brings it to its end; a cancelled cell waits for `study retry`."""
        return not self.over and self.state != "cancelled"

    @property
    def seconds_left(self) -> float | None:
        """Of a running cell at its present rate; None where that is not known yet."""
        rate = self.progress.examples_per_second
        if self.state != "running" or not rate:
            return None
        return max(0.0, (self.cell.examples - self.progress.examples_seen) / rate)


def read(study: Study, root: Path) -> list[Entry]:
    """All cells of `study`, in its order. `root` is a folder or a bucket, as `place` gives it.

    Raises:
      RecordError: a folder holds another cell than its name says.
    """
    folders = [study.folder(root) / cell.id for cell in study.cells]
    if not is_bucket(root):
        return [entry(*both) for both in zip(study.cells, folders, strict=True)]
    with ThreadPoolExecutor(16) as pool:  # each look at a bucket waits for several answers
        return list(pool.map(entry, study.cells, folders))


def entry(cell: Cell, folder: Path) -> Entry:
    """Where `cell` stands, whose record is `folder`."""
    known = read_json(folder / CELL)
    if known is not None and known.get("hash") not in (None, cell.hash):
        raise RecordError(
            f"{folder} holds another cell (hash {known['hash'][:8]}, not {cell.hash[:8]}); "
            "move it away or choose another --root"
        )
    done = read_json(folder / DONE)
    if done is not None:
        progress = CellProgress(
            step=done["step"],
            examples_seen=done["examples_seen"],
            pairs_seen=done["pairs_seen"],
            attempts=done["attempt"],
            time=done.get("time"),
        )
        state: State = "diverged" if done["status"] == "diverged" else "done"
        return Entry(cell=cell, folder=folder, state=state, progress=progress, done=done)
    progress = read_progress(folder)
    holder = holder_of(folder / LEASE)
    failed = read_json(folder / FAILED)
    if holder is not None:
        state = "running"
    elif is_cancelled(folder):
        state = "cancelled"
    elif failed is not None:
        state = "failed"
    else:
        state = "interrupted" if progress.attempts else "waiting"
    return Entry(
        cell=cell,
        folder=folder,
        state=state,
        progress=progress,
        done={},
        error=failed["error"] if failed and state == "failed" else None,
        holder=holder,
    )


def count(entries: Sequence[Entry]) -> dict[State, int]:
    """Cells per state, in the order of `STATES`, without the states that no cell is in."""
    counts = Counter(e.state for e in entries)
    return {state: counts[state] for state in STATES if counts[state]}


def exit_code(entries: Sequence[Entry]) -> int:
    """0: all cells are over, or cancelled; 1: some failed; 3: some are not over yet."""
    if not any(e.to_run for e in entries):
        return 0
    return 1 if any(e.state == "failed" for e in entries) else 3


def work(study: Study, cell: Cell) -> float:
    """What a cell takes beside the other cells of its study: by the study's own estimate where it
    has one, else by `cost`."""
    return (study.seconds or cost)(cell)


def cost(cell: Cell) -> float:
    """Relative time of a cell, to start the long ones first, so that all cores end together.

    Towers cost per example, the loss per pair, and each step has a price of its own. The weights
    were measured with the glyphs towers on CPU; only the order of the cells hangs on them.
    """
    return cell.examples + cell.steps * (13 + cell.batch_size**2 / 700)


def age(progress: CellProgress) -> float | None:
    """Seconds since the last line of the record."""
    return None if progress.time is None else max(0.0, time.time() - progress.time)
