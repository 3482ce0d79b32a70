"""Measures what a sweep adds to the training of its cells.

The compile cache is warm, because the cells of one seed have run before. Ray and its workers start
within the measured time, and each worker imports JAX.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sweeps.runner import cell_status
from sweeps.runner import run as runner
from sweeps.runner.display import Report
from sweeps.runner.machines import LOCAL
from sweeps.runner.signals import INTERRUPTED
from sweeps.study import Study, StudyError


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """The time of a sweep of `cells` cells by `parallel` workers.

    Attributes:
      seconds: wall time, from before Ray starts until it has stopped.
      train_seconds: in training steps, summed over the cells.
      spent: the cells' other seconds, by what they were spent on, summed over the cells.
    """

    cells: int
    parallel: int
    seconds: float
    train_seconds: float
    spent: dict[str, float]

    @property
    def ratio(self) -> float:
        """Wall time over the shortest time in which these cores can train the cells."""
        return self.seconds * self.parallel / self.train_seconds


def overhead(study: Study, folder: Path, *, workers: int, report: Report) -> Overhead:
    """Runs the cells of one seed to warm up, then times a sweep of all cells.

    Arguments:
      folder: for data and records.

    Raises:
      StudyError: a cell failed, or the run was interrupted.
    """
    execution = study.execution_of(study.cells[0])
    execution = dataclasses.replace(execution, data_root=str(folder / "data"))
    study = dataclasses.replace(study, execution=execution)
    first = tuple(c for c in study.cells if c.seed == study.cells[0].seed)
    report.line(f"warming up: {len(first)} cells, to compile every program")
    _run(dataclasses.replace(study, cells=first), folder / "warm", workers, report)
    report.line(f"timing: {len(study.cells)} cells")
    result = _run(study, folder / "timed", workers, report)
    spent = Counter[str]()
    for entry in cell_status.read(study, folder / "timed"):
        spent.update(entry.done["seconds"])
    return Overhead(
        cells=len(study.cells),
        parallel=result.parallel,
        seconds=result.seconds,
        train_seconds=result.train_seconds,
        spent={part: s for part, s in spent.items() if s and part not in ("total", "train")},
    )


def _run(study: Study, root: Path, workers: int, report: Report) -> runner.Result:
    result = runner.run(study, root, workers={LOCAL: workers}, report=report)
    if result.exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    if result.exit_code or set(result.states) != {"done"}:
        states = ", ".join(f"{n} {state}" for state, n in result.states.items())
        raise StudyError(f"nothing was timed: of the cells {states}; `study doctor` may say why")
    return result
