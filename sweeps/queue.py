"""The cells of a sweep that are still to run, and the budgets of their tries.

Preemptions and bugs have budgets of their own. A worker that dies is a preemption, however often,
as long as its cell gets further in between; a cell whose worker dies again and again at the same
place is crashing. A cell that raises is a bug: it gets `TRIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps import ledger
from sweeps.ledger import Entry

TRIES = 3  # of a cell that raises
CRASHES = 5  # of a worker, in a row, in which its cell got no further
LONGEST = 60.0  # seconds of back-off


@dataclass(eq=False)
class Job:
    """A cell on its way to its end.

    Attributes:
      entry: where the cell stood when it was last looked at.
      seen: the most examples that its record has shown.
      not_before: of the clock that the queue is asked with.
      began: when its present try was submitted.
    """

    entry: Entry
    failures: int = 0
    crashes: int = 0
    seen: int = 0
    not_before: float = 0.0
    began: float = 0.0


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are not over, in the order in which their cells start."""
    left = (e for e in entries if not e.over)
    return sorted(left, key=lambda e: (e.cell.seed, -ledger.cost(e.cell)))


class Queue:
    """Cells in the order in which they start, less those that wait out a back-off.

    All cells of the first seed come before those of the next, so that what one cell compiled is
    in the cache when its twin starts, and a sweep that is stopped half-way has whole seeds. Within
    a seed the longest come first, so that all cores end together.

    Arguments:
      backoff: seconds before the first new try; doubles with each, up to `LONGEST`.
    """

    def __init__(self, entries: Sequence[Entry], *, backoff: float):
        self.backoff = backoff
        self._jobs = [Job(entry=e, seen=e.progress.examples_seen) for e in in_order(entries)]

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
        seen = job.entry.progress.examples_seen
        job.crashes = 1 if seen > job.seen else job.crashes + 1
        job.seen = max(seen, job.seen)
        if job.crashes >= CRASHES:
            return False
        self.give_back(job, now, self.backoff * 2 ** (job.crashes - 1))
        return True
