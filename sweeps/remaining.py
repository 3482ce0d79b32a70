"""How long a sweep will still take, judged by what its own cells have taken so far.

An estimate of a cell is off by a factor: of the machine, of what else runs there, and of the kind
of step. The cells that have ended, and those that run, tell that factor. It is the median of each
kind that was observed; other kinds get the mean of those that were.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from study.cell import Cell
from study.flops import step_flops
from sweeps import ledger
from sweeps.grid import Study
from sweeps.ledger import Entry
from sweeps.pool import LOCAL, kind_of


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one whole cell took, or will at its present pace.

    Attributes:
      kind: equal for cells whose estimates are off by about the same factor.
      estimate: of the whole cell, in the unit of all estimates.
      seconds: of the whole cell.
    """

    kind: Hashable
    estimate: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of one cell.

    Attributes:
      kind: as of `Observed`.
      estimate: of what is left, in the unit of all estimates.
      spent: seconds that a running cell has taken of its estimate.
      seconds: of what is left, by the cell's own pace; None where it has none yet.
    """

    kind: Hashable
    estimate: float
    spent: float = 0.0
    seconds: float | None = None


def seconds_left(left: Sequence[Left], observed: Sequence[Observed], workers: int) -> float | None:
    """Seconds until all of `left` is done by so many workers, one cell each at a time.

    Returns:
      None without evidence: nothing was observed, or nobody works.
    """
    if not left:
        return 0.0
    if not observed or workers < 1:
        return None
    ratios = defaultdict(list)
    for o in observed:
        ratios[o.kind].append(o.seconds / o.estimate)
    medians = {kind: statistics.median(values) for kind, values in ratios.items()}
    # Weighed by the estimates, with medians in place of what each took: one cell that stalled
    # would else speak for all kinds.
    work = sum(o.estimate for o in observed)
    mean = sum(medians[o.kind] * o.estimate for o in observed) / work
    seconds = [
        max(0.0, one.estimate * medians.get(one.kind, mean) - one.spent)
        if one.seconds is None
        else one.seconds
        for one in left
    ]
    return max(*seconds, sum(seconds) / workers)


class Remaining:
    """Answers for the cells of one study; what does not change is computed once."""

    def __init__(self, study: Study):
        kinds: dict[Hashable, int] = {}
        self._machine: dict[str, str] = {}
        self._kind: dict[str, int] = {}
        self._estimate: dict[str, float] = {}
        for cell in study.cells:
            machine = kind_of(study.execution_of(cell).slice)
            # What the compiled step depends on, so not the seed, the budget or a rate.
            kind = (machine, cell.model, cell.batch_size, cell.loss.kind, cell.pairs)
            self._machine[cell.id] = machine
            self._kind[cell.id] = kinds.setdefault(kind, len(kinds))
            self._estimate[cell.id] = _estimate(study, cell, machine)

    def seconds(
        self,
        entries: Iterable[Entry],
        *,
        workers: Mapping[str, int] | None = None,
        spent: Mapping[str, float] | None = None,
    ) -> float | None:
        """Seconds until no cell is left to run; failed cells do not count.

        Arguments:
          entries: of all cells.
          workers: cells at a time by kind of machine; by default as many as run now.
          spent: seconds that a running cell has taken in its present try, by its id.

        Returns:
          None where that cannot be told yet.
        """
        spent = spent or {}
        left, observed = defaultdict(list), defaultdict(list)
        running: Counter[str] = Counter()
        for entry in entries:
            machine = self._machine[entry.cell.id]
            running[machine] += entry.state == "running"
            if entry.to_run and entry.state != "failed":
                left[machine].append(self._left(entry, spent.get(entry.cell.id)))
            if (seconds := _whole(entry, spent.get(entry.cell.id))) is not None:
                observed[machine].append(self._observed(entry, seconds))
        at_once = running if workers is None else workers
        by_machine = [
            seconds_left(cells, observed[machine], at_once.get(machine, 0))
            for machine, cells in left.items()
        ]
        known = [seconds for seconds in by_machine if seconds is not None]
        return max(known, default=0.0) if len(known) == len(by_machine) else None

    def _left(self, entry: Entry, spent: float | None) -> Left:
        cell, seen = entry.cell, entry.progress.examples_seen
        share = 1 - seen / cell.examples if seen else 1.0
        return Left(
            kind=self._kind[cell.id],
            estimate=self._estimate[cell.id] * share,
            spent=spent or 0.0,
            seconds=entry.seconds_left,
        )

    def _observed(self, entry: Entry, seconds: float) -> Observed:
        cell_id = entry.cell.id
        return Observed(kind=self._kind[cell_id], estimate=self._estimate[cell_id], seconds=seconds)


def _estimate(study: Study, cell: Cell, machine: str) -> float:
    """Of the whole cell; cells on slices are arithmetic, local ones what the study says."""
    if machine == LOCAL:
        return ledger.work(study, cell)
    return float(cell.steps * step_flops(cell).model)


def _resumed(entry: Entry) -> bool:
    return entry.progress.attempts > 1


def _whole(entry: Entry, spent: float | None) -> float | None:
    """Seconds of a whole cell, of one that ended in one try or runs at a known pace."""
    if entry.state == "done":
        return None if _resumed(entry) else entry.done.get("seconds", {}).get("total")
    if entry.seconds_left is None:
        return None
    if spent is not None and not _resumed(entry):
        return spent + entry.seconds_left
    assert entry.progress.examples_per_second is not None
    return entry.cell.examples / entry.progress.examples_per_second
