"""Which cell a worker trains next: the order of the cells, and the claim of one of them.

Cells with a priority come first. Of cells on slices then those that have the longest to go, so that
all slices end together: a cell there may take days. Of local cells all of the first seed come
before those of the next, so that what one cell compiled is in the cache when its twin starts, and a
sweep that is stopped half-way has whole seeds; within a seed each worker prefers cells whose
program it has compiled, then those whose program nobody else is compiling now, then the longest.

No worker knows of the others. Each walks down the same list and tries to take the lease of each
cell that is free; one that finds the lease just taken skips ahead at random, twice as far after
each loss, so that a thousand workers that start together do not queue for one cell.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from study.config import Cell
from study.models.flops import step_flops
from study.records.storage import RecordError
from study.training.compile_key import compile_key
from sweeps.runner import cell_status
from sweeps.runner.attempts import Attempt, Attempts, judge
from sweeps.runner.cell_status import CellStatus, StudyState, close_lost, parse_json
from sweeps.runner.lease import Lease
from sweeps.runner.machines import is_local, machine_of
from sweeps.runner.store import ATTEMPTS, CANCELLED, DONE, FAILED
from sweeps.study import Study

# Seconds between two looks at records of which none can be claimed: at least, at most.
_LOOK_S, _MAX_LOOK_S = 1.0, 60.0
_COMPILING_S = 30.0  # after a claim: then the program is in the cache, or takes long anyway


class Rank(NamedTuple):
    """What puts a cell before others."""

    pinned: int = 0  # its position among those named by `--run-first`, below 0; else 0
    priority: int = 0  # the highest first
    seconds: float = 0.0  # that it takes on its slice; 0 where that is unknown
    seed: int = 0  # of a local cell; 0 of others
    cost: float = 0.0  # relative time, where `seconds` is unknown
    program: int = 0  # equal for cells that share a compiled program

    def key(
        self, left: float, compiled: Collection[int], compiling: Collection[int]
    ) -> tuple[float, ...]:
        """Sorts cells into the order in which they start.

        Arguments:
          left: the share still to train.
          compiled: programs that the worker has compiled.
          compiling: programs that others are compiling.
        """
        first = self.pinned, -self.priority, -self.seconds * left, self.seed
        program = 0 if self.program in compiled else 1 + (self.program in compiling)
        return (*first, program, -self.cost * left)


def ranks(study: Study, first: Sequence[str] = ()) -> dict[str, Rank]:
    """The rank of every cell, by its id.

    Arguments:
      first: ids of cells that start before the others of their machine, in this order.
    """
    pinned = {cell_id: i - len(first) for i, cell_id in enumerate(first)}
    machines = {cell.id: machine_of(study.execution_of(cell)) for cell in study.cells}
    seconds: Mapping[str, float] = {}
    if on_slices := {id for id, machine in machines.items() if not is_local(machine)}:
        # Takes half a second to import, which a local sweep need not wait for.
        from sweeps.planning.plan import estimate_seconds

        seconds = estimate_seconds(study, on_slices)
    ranks = {}
    programs: dict[Cell, int] = {}
    for cell in study.cells:
        local = cell.id not in on_slices
        ranks[cell.id] = Rank(
            pinned=pinned.get(cell.id, 0),
            priority=study.execution_of(cell).priority,
            seconds=seconds.get(cell.id, 0.0),
            seed=cell.seed if local else 0,
            # On a slice a step is arithmetic; here it has a price of its own.
            cost=cell_status.cost(cell) if local else cell.steps * step_flops(cell).model,
            program=programs.setdefault(compile_key(cell), len(programs)),
        )
    return ranks


def in_order(
    statuses: Sequence[CellStatus],
    ranks: Mapping[str, Rank],
    compiled: Collection[int] = (),
    compiling: Collection[int] = (),
) -> list[CellStatus]:
    """The cells in the order in which a worker starts them, see `Rank.key`."""

    def key(status: CellStatus) -> tuple[float, ...]:
        left = 1 - status.progress.examples_seen / status.cell.examples
        return ranks.get(status.cell.id, Rank()).key(left, compiled, compiling)

    return sorted(statuses, key=key)


class Claim(NamedTuple):
    """A cell that this process may train, once it has started its lease."""

    status: CellStatus
    attempts: Attempts  # the present one is the last
    lease: Lease


def _waits(cell: Cell, training: Collection[str]) -> bool:
    """Whether a cell branches off one that will be trained first.

    One that is not of these cells, or has failed, is not waited for: its checkpoint exists, or
    training the branch says in one line that it does not.
    """
    return cell.branch is not None and cell.branch.cell in training


class Pass(NamedTuple):
    """The result of one walk down the list."""

    claim: Claim | None
    left: int  # cells that may still be claimed later: they wait for a retry, or others hold them


class Claimer:
    """Claims cells for one worker.

    Arguments:
      state: of the cells that the worker's machine can train.
      ranks: from `ranks`.
      worker: its name.
      seed: of the random skips; differs between workers.
    """

    def __init__(
        self,
        state: StudyState,
        ranks: Mapping[str, Rank],
        *,
        worker: str,
        seed: int | None = None,
    ):
        self._state, self._ranks, self._worker = state, ranks, worker
        self._random = random.Random(seed)
        self._compiled: set[int] = set()  # programs of the cells claimed so far

    def next(self) -> Pass:
        """Looks at the records once and claims the first cell that it can.

        Raises:
          OSError, RecordError: the storage does not respond.
        """
        every = self._state.refresh()
        statuses = [s for s in every if not s.finished]
        left = sum(s.runnable for s in statuses)
        now = time.time()
        # Of a failed cell only the end is recorded.
        ended = [s for s in statuses if s.state == "failed" and s.unrecorded]
        open_cells = [s for s in statuses if s.state in ("interrupted", "pending")]
        training = {s.cell.id for s in statuses if s.runnable}
        free = [s for s in open_cells if s.wait_until <= now and not _waits(s.cell, training)]
        cached = {self._program(s) for s in every if s.finished} | self._compiled
        recent = (s for s in statuses if s.claimed is not None and now - s.claimed < _COMPILING_S)
        compiling = {self._program(s) for s in recent} - cached
        free = in_order(free, self._ranks, self._compiled, compiling)
        trouble: OSError | RecordError | None = None
        for status in ended:
            with contextlib.suppress(OSError, RecordError):
                self._claim(status)
        index = losses = 0
        while index < len(free):
            try:
                claim = self._claim(free[index])
            except (OSError, RecordError) as error:  # of this record; others may be fine
                claim, trouble = None, error
            program = self._program(free[index])
            if claim is not None:
                self._compiled.add(program)
                return Pass(claim, left)
            losses += 1
            if program not in compiling | cached:  # the one who took this cell compiles it
                compiling.add(program)
                rest = free[index + 1 :]
                free[index + 1 :] = in_order(rest, self._ranks, self._compiled, compiling)
            index += 1 + self._random.randrange(2 ** min(losses, 10))
        if trouble is not None:
            raise trouble
        return Pass(None, left)

    def _program(self, status: CellStatus) -> int:
        return self._ranks.get(status.cell.id, Rank()).program

    def idle_s(self, look_s: float) -> float:
        """Seconds to wait after a look that found no cell to claim, and that took `look_s` seconds.

        A study of 10,000 cells fills tens of pages of a listing, and a thousand workers may be
        waiting for its last cells. They look at different times.
        """
        most = max(_LOOK_S, self._state.store.poll_s, min(_MAX_LOOK_S, 20 * look_s))
        return most * self._random.uniform(0.75, 1.0)

    def claim(self, status: CellStatus) -> Claim | None:
        """Claims a cell whatever its budget, as for `study train`; None if another has it."""
        return self._claim(status, forgive=True)

    def _claim(self, status: CellStatus, *, forgive: bool = False) -> Claim | None:
        lease = Lease.take(self._state.store, status.cell.id, self._worker, status.lease)
        if lease is None:
            return None
        attempts = None
        try:
            attempts = self._begin(status, forgive)
        finally:
            if attempts is None:
                lease.release()
        return None if attempts is None else Claim(status, attempts, lease)

    def _begin(self, status: CellStatus, forgive: bool) -> Attempts | None:
        """Looks again, for the listing may be older than the last owner's end; records an attempt.

        Returns:
          None if the cell is finished, cancelled, failed, or not as it was listed.
        """
        store, id = self._state.store, status.cell.id
        content = store.read_many((id, name) for name in (DONE, CANCELLED, FAILED, ATTEMPTS))
        failure = parse_json(content.get((id, FAILED)))
        attempts = close_lost(Attempts.parse(content.get((id, ATTEMPTS))), failure, status.lease)
        if parse_json(content.get((id, DONE))) or len(attempts.all) != len(status.attempts.all):
            return None
        if forgive:
            attempts = attempts.clear()
        elif (id, CANCELLED) in content:
            return None
        verdict = judge(attempts.counted, status.progress.step)
        if verdict.error:
            attempts.save(store, id)
            if not failure:
                store.write(id, FAILED, {"error": verdict.error, "time": time.time()})
            return None
        attempts = attempts.begin(
            Attempt(
                worker=self._worker,
                host=socket.gethostname(),
                claimed=round(time.time(), 3),
                step=status.progress.step,
            )
        )
        attempts.save(store, id)
        return attempts
