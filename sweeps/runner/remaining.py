"""How long a sweep will still take, judged by what its own cells have taken so far.

An estimate of a cell is off by a factor: of the machine, of what else runs there, and of the kind
of step. The cells that have ended, and those that run, tell that factor for training: the median
of each kind that was observed, the mean of those for other kinds. What comes on top of training is
observed too: a compilation for each kind, and opening, evaluation and checkpoints for each cell.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from study.config import Cell
from study.models.flops import step_flops
from sweeps.runner.cell_status import CellStatus, work
from sweeps.runner.machines import is_local, machine_of
from sweeps.study import Study

MOSTLY = 0.8  # of the time that a cell has taken, what is training once it has settled


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one cell took, in seconds.

    Attributes:
      kind: equal for cells whose estimates are off by about the same factor, and which share a
        compiled program.
      estimate: of the whole cell, in the unit of all estimates.
      train: of all its steps.
      compile, rest: beside training; None of a cell that still runs.
      end: when it ended, by whatever clock.
      settled: whether it has mostly trained so far; starting up and compiling are most of a short
        cell, and its pace tells nothing of them.
    """

    kind: Hashable
    estimate: float
    train: float
    compile: float | None = None
    rest: float | None = None
    end: float = float("inf")
    settled: bool = False


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of one cell.

    Attributes:
      kind: as of `Observed`.
      estimate: of what is left, in the unit of all estimates.
      spent: seconds that a running cell has taken so far.
      seconds: of what is left, by the cell's own pace; None where it has none yet.
    """

    kind: Hashable
    estimate: float
    spent: float = 0.0
    seconds: float | None = None


def seconds_left(left: Sequence[Left], observed: Sequence[Observed], workers: int) -> float | None:
    """Seconds until `workers` workers, each with one cell at a time, have done all of `left`.

    Returns:
      None without evidence: nobody works, or no cell has settled and no more have ended than there
      are workers, for the first cell of each worker starts it up.
    """
    if not left:
        return 0.0
    ended = sorted((o for o in observed if o.rest is not None), key=lambda o: o.end)
    if workers < 1 or not (len(ended) > workers or any(o.settled for o in observed)):
        return None
    ratios, compiles = defaultdict(list), defaultdict(list)
    for o in observed:
        ratios[o.kind].append(o.train / o.estimate)
        compiles[o.kind].append(o.compile or 0.0)
    medians = {kind: statistics.median(values) for kind, values in ratios.items()}
    # Weighed by the estimates, with medians in place of what each took: one cell that stalled
    # would else speak for all kinds.
    work = sum(o.estimate for o in observed)
    mean = sum(medians[o.kind] * o.estimate for o in observed) / work
    compile_once = statistics.median(max(values) for values in compiles.values())
    rest = statistics.median([o.rest or 0.0 for o in ended[workers:]] or [0.0])
    compiled, seconds = set(medians), []
    for one in left:
        if one.seconds is not None:
            compiled.add(one.kind)
            seconds.append(one.seconds)
    for one in left:
        if one.seconds is None:
            whole = one.estimate * medians.get(one.kind, mean) + rest
            whole += 0.0 if one.kind in compiled else compile_once
            compiled.add(one.kind)
            seconds.append(max(0.0, whole - one.spent))
    return max(*seconds, sum(seconds) / workers)


class Remaining:
    """Answers for the cells of one study; what does not change is computed once."""

    def __init__(self, study: Study):
        kinds: dict[Hashable, int] = {}
        self._machine: dict[str, str] = {}
        self._kind: dict[str, int] = {}
        self._estimate: dict[str, float] = {}
        for cell in study.cells:
            machine = machine_of(study.execution_of(cell))
            # What the compiled step depends on, so not the seed, the budget or a rate.
            kind = (machine, cell.model, cell.batch_size, cell.loss.kind, cell.pairs)
            self._machine[cell.id] = machine
            self._kind[cell.id] = kinds.setdefault(kind, len(kinds))
            self._estimate[cell.id] = _estimate(study, cell, machine)

    def seconds(
        self,
        statuses: Iterable[CellStatus],
        *,
        workers: Mapping[str, int] | None = None,
        spent: Mapping[str, float] | None = None,
    ) -> float | None:
        """Seconds until no cell is left to run; failed cells do not count.

        Arguments:
          statuses: of all cells.
          workers: cells at a time by kind of machine; by default as many as run now.
          spent: seconds that a running cell has taken in its present try, by its id.

        Returns:
          None where that cannot be told yet.
        """
        spent = spent or {}
        left, observed = defaultdict(list), defaultdict(list)
        running: Counter[str] = Counter()
        for status in statuses:
            machine = self._machine[status.cell.id]
            running[machine] += status.state == "running"
            if status.runnable:
                left[machine].append(self._left(status, spent.get(status.cell.id)))
            if (one := self._observed(status, spent.get(status.cell.id))) is not None:
                observed[machine].append(one)
        at_once = running if workers is None else workers
        by_machine = [
            seconds_left(cells, observed[machine], at_once.get(machine, 0))
            for machine, cells in left.items()
        ]
        known = [seconds for seconds in by_machine if seconds is not None]
        return max(known, default=0.0) if len(known) == len(by_machine) else None

    def _left(self, status: CellStatus, spent: float | None) -> Left:
        cell, seen = status.cell, status.progress.examples_seen
        share = 1 - seen / cell.examples if seen else 1.0
        return Left(
            kind=self._kind[cell.id],
            estimate=self._estimate[cell.id] * share,
            spent=spent or 0.0,
            seconds=status.seconds_left,
        )

    def _observed(self, status: CellStatus, spent: float | None) -> Observed | None:
        """What a cell tells: one that ended in one try, or runs at a known pace."""
        kind, estimate = self._kind[status.cell.id], self._estimate[status.cell.id]
        if status.state == "done":
            seconds = status.done.get("seconds", {})
            if status.progress.attempts > 1 or not {"train", "total"} <= set(seconds):
                return None
            train, compile_ = seconds["train"], seconds.get("compile", 0.0)
            return Observed(
                kind=kind,
                estimate=estimate,
                train=train,
                compile=compile_,
                rest=max(0.0, seconds["total"] - train - compile_),
                end=status.progress.time or 0.0,
                settled=train > MOSTLY * seconds["total"],
            )
        pace = status.progress.examples_per_second
        if status.state != "running" or not pace:
            return None
        return Observed(
            kind=kind,
            estimate=estimate,
            train=status.cell.examples / pace,
            settled=spent is None or status.progress.examples_seen / pace > MOSTLY * spent,
        )


def _estimate(study: Study, cell: Cell, machine: str) -> float:
    """Of the whole cell; cells on slices are arithmetic, local ones what the study says."""
    if is_local(machine):
        return work(study, cell)
    return float(cell.steps * step_flops(cell).model)
