"""Which cell a worker trains next: the order of the cells, and the claim of one of them.

Cells with a priority come first. Of cells on slices then those that have the longest to go, so that
all slices end together: a cell there may take days. Of local cells all of the first seed come
before those of the next, so that what one cell compiled is in the cache when its twin starts, and a
sweep that is stopped half-way has whole seeds; within a seed the longest come first.

No worker knows of the others. Each walks down the same list and tries to take the lease of each
cell that is free; one that finds the lease just taken skips ahead at random, twice as far after
each loss, so that a thousand workers that start together do not queue for one cell.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from study.models.flops import step_flops
from sweeps.runner import cell_status
from sweeps.runner.attempts import Attempt, Attempts, judge
from sweeps.runner.cell_status import CellStatus, StudyState, close_lost
from sweeps.runner.lease import Lease, Owner, acquire
from sweeps.runner.machines import is_local, machine_of
from sweeps.runner.store import ATTEMPTS, CANCELLED, DONE, FAILED, LEASE, Version
from sweeps.study import Study


class Rank(NamedTuple):
    """What puts a cell before others.

    Attributes:
      pinned: its position among those named by `--run-first`, below 0; else 0.
      priority: the highest first.
      seconds: that it takes on its slice; 0 where that is unknown.
      seed: of a local cell; 0 of others.
      cost: relative time, where `seconds` is unknown.
    """

    pinned: int = 0
    priority: int = 0
    seconds: float = 0.0
    seed: int = 0
    cost: float = 0.0

    def key(self, left: float) -> tuple[int, int, float, int, float]:
        """Sorts cells into the order in which they start; `left` is the share still to train."""
        return self.pinned, -self.priority, -self.seconds * left, self.seed, -self.cost * left


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
    for cell in study.cells:
        local = cell.id not in on_slices
        ranks[cell.id] = Rank(
            pinned=pinned.get(cell.id, 0),
            priority=study.execution_of(cell).priority,
            seconds=seconds.get(cell.id, 0.0),
            seed=cell.seed if local else 0,
            # On a slice a step is arithmetic; here it has a price of its own.
            cost=cell_status.cost(cell) if local else cell.steps * step_flops(cell).model,
        )
    return ranks


def in_order(statuses: Sequence[CellStatus], ranks: Mapping[str, Rank]) -> list[CellStatus]:
    """The cells in the order in which they start."""

    def key(status: CellStatus) -> tuple[int, int, float, int, float]:
        left = 1 - status.progress.examples_seen / status.cell.examples
        return ranks.get(status.cell.id, Rank()).key(left)

    return sorted(statuses, key=key)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A cell that this process may train; `release` it with the outcome of the attempt."""

    status: CellStatus
    attempts: Attempts
    version: Version
    owner: Owner


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The result of one walk down the list.

    Attributes:
      claim: None if no cell could be claimed.
      left: how many cells may still be claimed later: they wait for a retry, or others hold them.
    """

    claim: Claim | None
    left: int


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
        backoff_s: float = 1.0,
        seed: int | None = None,
    ):
        self._state, self._ranks, self._worker = state, ranks, worker
        self._backoff_s = backoff_s
        self._random = random.Random(seed)

    def next(self) -> Pass:
        """Looks at the records once and claims the first cell that it can.

        Raises:
          OSError, RecordError: the storage does not respond.
        """
        statuses = in_order(self._state.refresh(), self._ranks)
        left = sum(s.runnable for s in statuses)
        for status in statuses:
            if status.state == "failed" and status.unrecorded:
                self._claim(status)  # which records that it failed
        now = time.time()
        free = [
            s for s in statuses if s.state in ("interrupted", "pending") and s.wait_until <= now
        ]
        index = losses = 0
        while index < len(free):
            claim = self._claim(free[index])
            if claim is not None:
                return Pass(claim=claim, left=left)
            losses += 1
            index += 1 + self._random.randrange(2 ** min(losses, 10))
        return Pass(claim=None, left=left)

    def claim(self, status: CellStatus) -> Claim | None:
        """Claims a cell whatever its budget, as for `study train`; None if another has it."""
        return self._claim(status, forgive=True)

    def _claim(self, status: CellStatus, *, forgive: bool = False) -> Claim | None:
        """Takes the lease, then looks again: the listing may be older than the last owner's end."""
        store, id = self._state.store, status.cell.id
        owner = Owner.here(self._worker)
        version = acquire(store, id, owner, status.lease)
        if version is None:
            return None
        names = (DONE, CANCELLED, FAILED, ATTEMPTS)
        content = store.read_many((id, name) for name in names)
        failure = cell_status.parse_json(content.get((id, FAILED)))
        attempts = Attempts.parse(content.get((id, ATTEMPTS)))
        attempts = close_lost(attempts, failure, status.lease)
        if forgive:
            attempts = attempts.clear()
        verdict = judge(attempts.counted, status.progress.step, backoff_s=self._backoff_s)
        stop = (id, DONE) in content or (not forgive and (id, CANCELLED) in content)
        if stop or verdict.error:
            if verdict.error and not stop:
                attempts.save(store, id)
                if not failure:
                    store.write(id, FAILED, {"error": verdict.error, "time": time.time()})
            store.swap(id, LEASE, b"", version)
            return None
        attempts = attempts.begin(
            Attempt(
                worker=self._worker,
                host=owner.host,
                claimed=round(time.time(), 3),
                step=status.progress.step,
            )
        )
        attempts.save(store, id)
        return Claim(status=status, attempts=attempts, version=version, owner=owner)


def start_lease(state: StudyState, claim: Claim) -> Lease:
    """The claim's lease, renewed from here on."""
    return Lease.held(state.store, claim.status.cell.id, claim.owner, claim.version)
