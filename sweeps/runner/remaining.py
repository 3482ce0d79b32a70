"""Predicts how long a sweep will still take from what its own cells have taken so far.

The estimate of a cell is wrong by a factor that depends on the machine, on its load and on the kind
of step. Finished and running cells give that factor for training: the median over the observed
cells of each kind, and the mean of these medians for other kinds. The rest is observed as well: a
compilation for each kind, and opening, evaluation and checkpoints for each cell, of which a running
cell has some ahead of it.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from study.config import Budget, Cell
from study.models.flops import step_flops
from study.training.compile_key import compile_key
from sweeps.runner.cell_status import CellStatus, work
from sweeps.runner.machines import is_local, machine_of
from sweeps.study import Study

MOSTLY = 0.8  # share of training in the time of a cell that has settled
# Share of a cell from which its own pace counts: before, one evaluation makes it look slow.
PACED = 0.2


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one cell took, in seconds."""

    # Equal for cells whose estimates are off by about one factor, and which share a program.
    kind: Hashable
    estimate: float  # of training the whole cell, in the unit of all estimates
    train: float  # of all its steps
    compile: float | None = None  # None while the cell runs
    rest: float | None = None  # besides training and compiling; None while the cell runs
    open: float = 0.0  # part of `rest`: until it had its data
    end: float = float("inf")  # when it ended; comparable between cells
    # Whether it has mostly trained so far: the rate of a short cell does not show how it starts.
    settled: bool = False


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of one cell."""

    kind: Hashable  # as of `Observed`
    estimate: float  # of what is left, in the unit of all estimates
    spent: float = 0.0  # seconds that a running cell has taken so far
    seconds: float | None = None  # of training, at the cell's own rate, if that is known yet
    trained: float = 0.0  # seconds of training so far, at that rate


def seconds_left(left: Sequence[Left], observed: Sequence[Observed], workers: int) -> float | None:
    """Seconds until `workers` workers, each with one cell at a time, have done all of `left`.

    Returns:
      None without evidence: there are no workers, or no cell has settled and no more have ended
      than there are workers (the first cell of a worker includes its start).
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
    # Weighted by the estimates, with medians in place of single times, because one cell that
    # stalled would distort all kinds.
    work = sum(o.estimate for o in observed)
    mean = sum(medians[o.kind] * o.estimate for o in observed) / work
    compile_once = statistics.median(max(values) for values in compiles.values())
    # The first cells of the workers may write the data set while they open it.
    rests = [o.rest or 0.0 for o in ended[workers:]] or [(o.rest or 0.0) - o.open for o in ended]
    rest = statistics.median(rests or [0.0])
    compiled, seconds = set(medians), []
    for one in left:
        if one.seconds is not None:
            compiled.add(one.kind)
            seconds.append(one.seconds + max(0.0, rest - max(0.0, one.spent - one.trained)))
    for one in left:
        if one.seconds is None:
            whole = one.estimate * medians.get(one.kind, mean) + rest
            whole += 0.0 if one.kind in compiled else compile_once
            compiled.add(one.kind)
            seconds.append(max(0.0, whole - one.spent))
    return max(*seconds, sum(seconds) / workers)


class Remaining:
    """The time left of one study; what does not change is computed once."""

    def __init__(self, study: Study):
        kinds: dict[Hashable, int] = {}
        self._machine: dict[str, str] = {}
        self._kind: dict[str, int] = {}
        self._estimate: dict[str, float] = {}
        for cell in study.cells:
            machine = machine_of(study.execution_of(cell))
            kind = (machine, compile_key(cell))
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
        """Seconds until no cell is left to run.

        Arguments:
          statuses: of all cells.
          workers: cells at a time by kind of machine; by default as many as run now.
          spent: seconds that a running cell has taken in its present try, by its id; by default
            until now.

        Returns:
          None if there is no evidence yet.
        """
        statuses = list(statuses)
        if spent is None:
            now = time.time()
            spent = {s.cell.id: now - s.claimed for s in statuses if s.claimed is not None}
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
        rate = status.progress.examples_per_second
        return Left(
            kind=self._kind[cell.id],
            estimate=self._estimate[cell.id] * share,
            spent=spent or 0.0,
            seconds=status.seconds_left if seen > PACED * cell.examples else None,
            trained=seen / rate if rate else 0.0,
        )

    def _observed(self, status: CellStatus, spent: float | None) -> Observed | None:
        """The evidence from a cell that ended in one attempt, or that runs at a known rate."""
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
                open=seconds.get("open", 0.0),
                end=status.progress.time or 0.0,
                settled=train > MOSTLY * seconds["total"],
            )
        rate = status.progress.examples_per_second
        if status.state != "running" or not rate:
            return None
        return Observed(
            kind=kind,
            estimate=estimate,
            train=status.cell.examples / rate,
            settled=spent is None or status.progress.examples_seen / rate > MOSTLY * spent,
        )


def _estimate(study: Study, cell: Cell, machine: str) -> float:
    """Of the training of the whole cell: by FLOPs on a slice, by the study's estimate on a core.

    What a study estimates for opening, compiling and evaluating does not grow with the budget, so
    a budget twice as long tells it from training.
    """
    if not is_local(machine):
        return float(cell.steps * step_flops(cell).model)
    twice = Budget(**{by: 2 * n for by, n in vars(cell.budget).items() if n is not None})
    optimizer = cell.optimizer
    if optimizer.schedule_examples:  # it may not end before the cell does
        optimizer = dataclasses.replace(
            optimizer, schedule_examples=2 * optimizer.schedule_examples
        )
    longer = dataclasses.replace(cell, budget=twice, optimizer=optimizer)
    whole = work(study, cell)
    return work(study, longer) - whole or whole
