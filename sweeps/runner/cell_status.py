"""Where every cell of a study stands, read from its records and from nothing else."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from study.config import Cell
from study.records.metrics_log import METRICS, CellProgress, read_progress
from study.records.record import CELL, DONE, FAILED
from sweeps.runner.attempts import Attempts, Verdict, judge
from sweeps.runner.lease import Heartbeats, Owner
from sweeps.runner.store import ATTEMPTS, CANCELLED, LEASE, Store, Version, open_store
from sweeps.study import Study

State = Literal["done", "diverged", "failed", "cancelled", "running", "interrupted", "pending"]
STATES: tuple[State, ...] = get_args(State)
FINISHED: tuple[State, ...] = ("done", "diverged")  # never entered again

_NO_FILES: dict[str, Version] = {}
_CONTENTS = (DONE, FAILED, ATTEMPTS)  # read when they change; of the others existence is enough
_PROGRESS_S = 5.0  # seconds between two reads of a running cell's rows in a bucket
_AT_ONCE = 32  # reads of rows from a bucket
_FINISHED_S = 60.0  # seconds between two looks at cells that are finished: files may be deleted

_NOTHING: tuple[str | None, float, CellProgress] = (None, 0.0, CellProgress())


@dataclass(frozen=True, kw_only=True)
class CellStatus:
    """Where one cell stands."""

    cell: Cell
    folder: Path
    state: State
    # From the tail of its rows, or its end.
    progress: CellProgress = field(default_factory=CellProgress)
    done: dict[str, Any] = field(default_factory=dict)  # the content of DONE.json
    attempts: Attempts = field(default_factory=Attempts)
    error: str | None = None  # why it failed, or why the last attempt of another cell did
    owner: Owner | None = None  # who trains it, of a running cell
    wait_until: float = 0.0  # earliest time of its next attempt, in seconds since 1970
    lease: Version | None = None  # the version of its lease, None if there is none
    unrecorded: bool = False  # whether the last attempt ended and nobody has recorded it yet

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def runnable(self) -> bool:
        """Whether a worker will bring it to its end, or is at it."""
        return self.state in ("running", "interrupted", "pending")

    @property
    def claimed(self) -> float | None:
        """When the present attempt of a running cell began, in seconds since 1970."""
        if self.state != "running" or not self.attempts.all:
            return None
        return self.attempts.all[-1].claimed

    @property
    def seconds_left(self) -> float | None:
        """Of a running cell at its present rate; None where that is not known yet."""
        rate = self.progress.examples_per_second
        if self.state != "running" or not rate:
            return None
        return max(0.0, (self.cell.examples - self.progress.examples_seen) / rate)


class StudyState:
    """The statuses of cells, kept up to date by one listing a time.

    Arguments:
      folder: of the study's records.
      heartbeats: those of another clock or process.
      for_claims: trust no time of a file, and do not read what only a display needs, where reads
        cost money: how far cells are that others train, and how cells ended.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        folder: Path,
        *,
        store: Store | None = None,
        heartbeats: Heartbeats | None = None,
        for_claims: bool = False,
        read_progress: Callable[[Path], CellProgress] = read_progress,
    ):
        self.store = store or open_store(folder)
        self.folder = folder
        self._cells = {cell.id: cell for cell in cells}
        self.heartbeats = heartbeats or Heartbeats(self.store, trust_mtime=not for_claims)
        self._for_claims = for_claims
        self._read_progress = read_progress
        self._files: dict[str, Mapping[str, Version]] = {}
        self._tokens: dict[str, dict[str, str]] = {}
        self._contents: dict[tuple[str, str], bytes] = {}
        self._progress: dict[str, tuple[str | None, float, CellProgress]] = {}
        self._statuses: dict[str, CellStatus] = {}
        self._looked_at_all = float("-inf")

    def refresh(self, cell: str | None = None) -> list[CellStatus]:
        """Lists the records and reads what has changed; the statuses in the order of the cells.

        Arguments:
          cell: the id of the only cell to look at; None looks at all.

        Raises:
          OSError, RecordError: the storage does not respond.
        """
        finished = {id for id, status in self._statuses.items() if status.finished}
        if cell is None and time.monotonic() - self._looked_at_all > _FINISHED_S:
            self._looked_at_all, finished = time.monotonic(), set()
        listing = self.store.list(cell, skip=finished)
        ids = list(self._cells) if cell is None else [cell]
        # Of the others neither the files nor, by the clock, the owner can have changed.
        looked_at = {
            id: files
            for id in ids
            if id not in finished
            and (
                (files := listing.get(id, _NO_FILES)) != self._files.get(id)
                or self._statuses[id].owner is not None
            )
        }
        self.heartbeats.update({id: files.get(LEASE) for id, files in looked_at.items()})
        changed = []
        for id, files in looked_at.items():
            tokens = {name: files[name].token for name in self._contents_of(id, files)}
            before = self._tokens.get(id, {})
            for name in before:
                if tokens.get(name) != before[name]:
                    self._contents.pop((id, name), None)
            changed += [(id, name) for name in tokens if tokens[name] != before.get(name)]
            if tokens or before:
                self._tokens[id] = tokens
        self._contents |= self.store.read_many(changed)
        self._read_rows(looked_at)
        for id, files in looked_at.items():
            self._statuses[id], self._files[id] = self._status(id, files), files
        return [self._statuses[id] for id in ids]

    def _contents_of(self, id: str, files: Mapping[str, Version]) -> list[str]:
        """The files of a cell that are read. That it is finished or held is enough for a claim."""
        if (
            self._for_claims
            and not self.store.reads_are_cheap
            and (DONE in files or self.heartbeats.owner(id, files.get(LEASE)) is not None)
        ):
            return []
        return [name for name in _CONTENTS if name in files]

    def _status(self, id: str, files: Mapping[str, Version]) -> CellStatus:
        cell = self._cells[id]
        status = CellStatus(
            cell=cell, folder=self.folder / id, state="pending", lease=files.get(LEASE)
        )
        attempts = Attempts.parse(self._contents.get((id, ATTEMPTS)))
        if done := parse_json(self._contents.get((id, DONE))):
            return replace(
                status,
                state="diverged" if done["status"] == "diverged" else "done",
                progress=CellProgress(
                    step=done["step"],
                    examples_seen=done["examples_seen"],
                    pairs_seen=done["pairs_seen"],
                    attempts=done["attempt"],
                    time=done.get("time"),
                ),
                done=done,
                attempts=attempts,
            )
        if DONE in files and not self._contents_of(id, files):
            return replace(status, state="done")
        owner = self.heartbeats.owner(id, status.lease)
        progress = self._progress.get(id, _NOTHING)[2]
        status = replace(status, progress=progress, owner=owner)
        if owner is not None:
            return replace(status, state="running", attempts=attempts)
        failure = parse_json(self._contents.get((id, FAILED)))
        closed = close_lost(attempts, failure, status.lease)
        unrecorded, attempts = closed is not attempts, closed
        verdict = judge(attempts.counted, progress.step)
        if failure and not attempts.all:  # recorded before there were attempts
            verdict = Verdict(failure["error"])
        begun = bool(progress.attempts or attempts.all)
        status = replace(
            status,
            state="interrupted" if begun else "pending",
            attempts=attempts,
            unrecorded=unrecorded,
            wait_until=verdict.wait_until,
            error=verdict.error or (failure or {}).get("error"),
        )
        if CANCELLED in files:
            return replace(status, state="cancelled")
        return replace(status, state="failed") if verdict.error else status

    def _read_rows(self, files: Mapping[str, Mapping[str, Version]]) -> None:
        """Reads how far cells are whose rows may have changed since they were last read."""
        now = time.monotonic()
        stale = {}
        for id in files:
            token = self._rows_token(id, files[id])
            known, at, _ = self._progress.get(id, _NOTHING)
            if token is not None and (known != token or (not token and now - at > _PROGRESS_S)):
                stale[id] = token

        def read_one(id: str) -> None:
            self._progress[id] = (stale[id], now, self._read_progress(self.folder / id))

        if self.store.reads_are_cheap or len(stale) < 2:
            for id in stale:
                read_one(id)
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(read_one, stale))

    def _rows_token(self, id: str, files: Mapping[str, Version]) -> str | None:
        """Differs if a cell's rows do; "" if they may differ at any time, None if nobody asks."""
        if CELL not in files or DONE in files:
            return None
        lease = files.get(LEASE)
        running = self.heartbeats.owner(id, lease) is not None
        if running and self._for_claims:
            return None
        if METRICS in files:
            return files[METRICS].token
        # In a bucket the rows are other objects, which the listing leaves out.
        attempts = files.get(ATTEMPTS)
        return "" if running else f"{lease and lease.token} {attempts and attempts.token}"


def close_lost(
    attempts: Attempts, failure: Mapping[str, Any] | None, lease: Version | None
) -> Attempts:
    """Ends a last attempt that has no outcome although nobody holds the lease.

    Arguments:
      failure: the content of FAILED.json, which a worker writes before it ends, and which the
        next attempt removes.
      lease: the version that was left behind.
    """
    if not attempts.all or attempts.all[-1].outcome is not None:
        return attempts
    if failure and failure.get("time", 0.0) >= attempts.all[-1].claimed - 1.0:
        return attempts.end("raised", at=failure["time"], error=failure["error"])
    # The time of a free lease is when it was freed; of a stale one the last heartbeat. In a folder
    # a free one is missing, and the present time would put the next attempt off at each look.
    return attempts.end("lost", at=lease.mtime if lease else attempts.all[-1].claimed)


def read(study: Study, root: Path) -> list[CellStatus]:
    """All cells of `study`, in its order. `root` is a folder or a bucket, as `resolve` gives it."""
    return StudyState(study.cells, study.folder(root)).refresh()


def read_cell(cell: Cell, folder: Path) -> CellStatus:
    """Where `cell` stands, whose record is `folder`."""
    return StudyState([cell], folder.parent).refresh(cell.id)[0]


def count(statuses: Sequence[CellStatus]) -> dict[State, int]:
    """Cells per state, in the order of `STATES`, without the states that no cell is in."""
    counts = Counter(s.state for s in statuses)
    return {state: counts[state] for state in STATES if counts[state]}


def exit_code(statuses: Sequence[CellStatus]) -> int:
    """0: all cells are finished or cancelled; 1: some failed; 3: some are unfinished."""
    if any(s.state == "failed" for s in statuses):
        return 1
    return 3 if any(s.runnable for s in statuses) else 0


def work(study: Study, cell: Cell) -> float:
    """A cell's share of the work of its study: the study's own estimate, or else `cost`."""
    return (study.seconds or cost)(cell)


def cost(cell: Cell) -> float:
    """Relative time of a cell, to start the long ones first, so that all cores end together.

    Towers cost per example, the loss per pair, and each step has a price of its own. The weights
    were measured with the glyphs towers on CPU; only the order of the cells depends on them.
    """
    return cell.examples + cell.steps * (13 + cell.batch_size**2 / 700)


def parse_json(content: bytes | None) -> dict[str, Any] | None:
    """The object in a file; None if it is missing, torn or something else."""
    try:
        value = json.loads(content or b"")
    except ValueError:
        return None
    return value if value and isinstance(value, dict) else None
