"""The cells of a sweep that are still to run, and the budgets of their tries.

Preemptions and bugs have budgets of their own. A machine that is taken away, or a worker that
dies, costs nothing, however often, as long as the cell gets further in between; one that does not
is given up after `PREEMPTIONS` or `CRASHES` in a row. A cell that raises is a bug: it gets `TRIES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from study.models.flops import step_flops
from sweeps.runner import cell_status as ledger
from sweeps.runner.capacity import LOCAL, Pool, kind_of, pod_of
from sweeps.runner.cell_status import Entry
from sweeps.study import Study

TRIES = 3  # of a cell that raises
CRASHES = 5  # of a worker, in a row, in which its cell got no further
PREEMPTIONS = 20  # in a row, in which a cell got no further
LONGEST = 60.0  # seconds of back-off


@dataclass(eq=False)
class Job:
    """A cell on its way to its end.

    Attributes:
      entry: where the cell stood when it was last looked at.
      kind: of machine that it runs on.
      preemptions: in a row, in which it got no further.
      seen: the most examples that its record has shown.
      not_before: of the clock that the queue is asked with.
      began: when its present try was submitted.
    """

    entry: Entry
    kind: str = LOCAL
    failures: int = 0
    crashes: int = 0
    preemptions: int = 0
    seen: int = 0
    not_before: float = 0.0
    began: float = 0.0


class Rank(NamedTuple):
    """What puts a cell before others.

    Attributes:
      place: among those that are to be first, below 0; else 0.
      priority: the highest first.
      seconds: that it takes on its slice; 0 where nobody can tell.
    """

    place: int = 0
    priority: int = 0
    seconds: float = 0.0


def priorities(study: Study, first: Sequence[str] = ()) -> dict[str, Rank]:
    """By the id of a cell: `first`, in this order, then its `priority`, then how long it takes."""
    place = {cell_id: i - len(first) for i, cell_id in enumerate(first)}
    executions = {c.id: study.execution_of(c) for c in study.cells}
    on_slices = {id for id, execution in executions.items() if kind_of(execution.slice) != LOCAL}
    seconds: Mapping[str, float] = {}
    if on_slices:
        from sweeps.planning.plan import (
            estimate_seconds,  # half a second, which a local sweep need not wait for
        )

        seconds = estimate_seconds(study, on_slices)
    return {
        id: Rank(place.get(id, 0), execution.priority, seconds.get(id, 0.0))
        for id, execution in executions.items()
    }


def in_order(
    entries: Sequence[Entry],
    ahead: Mapping[str, Rank] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> list[Entry]:
    """The entries that are to run, in the order in which their cells start.

    Arguments:
      ahead: from `priorities`.
      kinds: of machine, by cell id; what is not named is local.
    """
    ahead, kinds = ahead or {}, kinds or {}

    def key(e: Entry) -> tuple[int, int, float, int, float]:
        rank = ahead.get(e.cell.id, Rank())
        local = kinds.get(e.cell.id, LOCAL) == LOCAL
        left = 1 - e.progress.examples_seen / e.cell.examples
        # On a slice a step is arithmetic; here it has a price of its own.
        cost = ledger.cost(e.cell) if local else e.cell.steps * step_flops(e.cell).model
        return rank.place, -rank.priority, -rank.seconds * left, e.cell.seed, -cost * left

    return sorted((e for e in entries if e.to_run), key=key)


class Queue:
    """Cells in the order in which they start, less those that wait out a back-off.

    What has a priority comes first. Of cells on slices then those that have the longest to go, so
    that all slices end together: a cell there may take days. Of local cells all of the first seed
    come before those of the next, so that what one cell compiled is in the cache when its twin
    starts, and a sweep that is stopped half-way has whole seeds; within a seed the longest come
    first. Whether there is a machine for a cell is the pool's to say.

    Arguments:
      backoff: seconds before the first new try; doubles with each, up to `LONGEST`.
      ahead: from `priorities`.
      kinds: of machine, by cell id; what is not named is local.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        backoff: float,
        ahead: Mapping[str, Rank] | None = None,
        kinds: Mapping[str, str] | None = None,
    ):
        self.backoff = backoff
        self._kinds = kinds or {}
        self._jobs: list[Job] = []
        for entry in in_order(entries, ahead, kinds):
            self.put(entry)

    def put(self, entry: Entry) -> None:
        """One more cell, last of all, with budgets of its own."""
        kind = self._kinds.get(entry.cell.id, LOCAL)
        self._jobs.append(Job(entry=entry, kind=kind, seen=entry.progress.examples_seen))

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def ready(self, now: float) -> list[Job]:
        return [job for job in self._jobs if job.not_before <= now]

    def take(self, job: Job) -> None:
        self._jobs.remove(job)

    def give_back(self, job: Job, now: float, wait: float = 0.0) -> None:
        """The cell is tried again, first of all, once `wait` seconds are over."""
        job.not_before = now + min(LONGEST, wait)
        self._jobs.insert(0, job)

    def raised(self, job: Job, now: float) -> bool:
        """The cell raised. Returns whether it is tried again."""
        job.failures += 1
        if job.failures >= TRIES:
            return False
        self.give_back(job, now, self.backoff * 2 ** (job.failures - 1))
        return True

    def crashed(self, job: Job, now: float) -> bool:
        """Its worker died, and `job.entry` is where that left the cell. Tried again?"""
        job.crashes = 1 if self._got_further(job) else job.crashes + 1
        if job.crashes >= CRASHES:
            return False
        self.give_back(job, now, self.backoff * 2 ** (job.crashes - 1))
        return True

    def preempted(self, job: Job, now: float) -> bool:
        """Its machine was taken away, and `job.entry` is where that left the cell. Tried again?"""
        job.preemptions = 1 if self._got_further(job) else job.preemptions + 1
        if job.preemptions >= PREEMPTIONS:
            return False
        self.give_back(job, now, self.backoff * 2 ** (job.preemptions - 1))
        return True

    def _got_further(self, job: Job) -> bool:
        seen = job.entry.progress.examples_seen
        further = seen > job.seen
        job.seen = max(seen, job.seen)
        return further


def admitted(queue: Queue, pool: Pool, now: float) -> Iterator[Job]:
    """The cells that there is room for, in their order. Whoever gets one takes it off the queue.

    A kind of machine that is taken holds up no other; but where the next cell of a kind has no
    room, no later one overtakes it: it may want two slices and wait for the second.
    """
    taken: set[str] = set()
    for job in queue.ready(now):
        if pod_of(job.kind) in taken:
            continue
        if pool.room(job.kind):
            yield job
        else:
            taken.add(pod_of(job.kind))
