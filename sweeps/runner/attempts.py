"""The attempts at a cell, and whether it gets another one: budgets that no restart renews.

    attempts.json    {"attempts": [{"worker": ..., "outcome": ...}, ...], "cleared": 0}

The holder of the lease is the only one who writes it. An attempt without an outcome, whose lease is
free or stale, belongs to a worker that died: the next worker to claim the cell records that.

Bugs and lost machines have budgets of their own. A cell that raises gets `RAISED` attempts. A
worker that dies, or a machine that is preempted, costs nothing while the cell gets further; `LOST`
or `PREEMPTED` attempts in a row without progress end it. Invalid input is not tried again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from sweeps.runner.store import ATTEMPTS, Store

RAISED, LOST, PREEMPTED = 3, 5, 20  # attempts; the last two in a row without progress
BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0  # after the first failure; it doubles with each further one

Outcome = Literal[
    "done",
    "diverged",
    "stopped",  # on request; the state is saved
    "cancelled",
    "preempted",  # the machine gave notice; the state is saved
    "raised",
    "invalid",  # bad input: the same again would fail again
    "no space",  # the worker could not write the record
    "lost",  # the worker died, or lost its lease
]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a cell. Times are seconds since 1970, by the clock of its host."""

    worker: str
    host: str
    claimed: float
    step: int = 0  # that the cell's rows had reached then
    outcome: Outcome | None = None  # None while it runs
    ended: float | None = None  # of a lost attempt the last heartbeat of its lease
    error: str | None = None  # one line


@dataclass(frozen=True)
class Attempts:
    """All attempts at a cell, oldest first; `cleared` of them were forgiven by `study retry`."""

    all: tuple[Attempt, ...] = ()
    cleared: int = 0

    @classmethod
    def parse(cls, content: bytes | None) -> Attempts:
        """The content of attempts.json; a file that is missing or torn has none."""
        try:
            value = json.loads(content or b"")
            attempts = tuple(Attempt(**attempt) for attempt in value["attempts"])
            return cls(attempts, int(value["cleared"]))
        except (ValueError, TypeError, KeyError):
            return cls()

    def save(self, store: Store, cell: str) -> None:
        attempts = [asdict(attempt) for attempt in self.all]
        store.write(cell, ATTEMPTS, {"attempts": attempts, "cleared": self.cleared})

    @property
    def counted(self) -> tuple[Attempt, ...]:
        return self.all[self.cleared :]

    def begin(self, attempt: Attempt) -> Attempts:
        return replace(self, all=(*self.all, attempt))

    def end(self, outcome: Outcome, *, at: float, error: str | None = None) -> Attempts:
        """Records how the last attempt ended, unless that is recorded."""
        if not self.all or self.all[-1].outcome is not None:
            return self
        last = replace(self.all[-1], outcome=outcome, ended=round(at, 3), error=error)
        return replace(self, all=(*self.all[:-1], last))

    def clear(self) -> Attempts:
        """Forgives every attempt so far."""
        return replace(self, cleared=len(self.all))


@dataclass(frozen=True)
class Verdict:
    """Whether a cell may be tried again."""

    error: str | None = None  # why not, in one line; None if it may
    wait_until: float = 0.0  # earliest time of the next attempt, in seconds since 1970
    tries: tuple[int, int] = (0, 0)  # of the kind that ended last: attempts, and their budget


def judge(attempts: Sequence[Attempt], step: int) -> Verdict:
    """Whether a cell gets another attempt.

    Arguments:
      attempts: those that count, all ended.
      step: that the cell's rows have reached.
    """
    if not attempts:
        return Verdict()
    last = attempts[-1]
    error = last.error or "no reason recorded"
    if last.outcome == "invalid":
        return Verdict(error)
    if last.outcome == "raised":
        count, budget = sum(a.outcome == "raised" for a in attempts), RAISED
        error = f"{error} (attempt {count} of {budget})"
    elif last.outcome == "lost":
        count, budget = _without_progress(attempts, step, "lost"), LOST
        reason = last.error or "out of memory?"
        error = f"its worker died {count} times without getting further: {reason}"
    elif last.outcome == "preempted":
        count, budget = _without_progress(attempts, step, "preempted"), PREEMPTED
        error = f"it was preempted {count} times without getting further"
    else:
        return Verdict()
    wait = min(MAX_BACKOFF_S, BACKOFF_S * 2 ** max(0, count - 1)) if count else 0.0
    # The clock of the host that recorded the end may be ahead.
    wait_until = min((last.ended or 0.0) + wait, time.time() + wait)
    return Verdict(error if count >= budget else None, wait_until, (count, budget))


def _without_progress(attempts: Sequence[Attempt], step: int, outcome: Outcome) -> int:
    """How many attempts ended so, from the last one in which the cell got further on."""
    reached = [attempt.step for attempt in attempts[1:]] + [step]
    count = 0
    for i in reversed(range(len(attempts))):
        count += attempts[i].outcome == outcome
        if reached[i] > max(attempt.step for attempt in attempts[: i + 1]):
            break  # it got further in this one
    return count
