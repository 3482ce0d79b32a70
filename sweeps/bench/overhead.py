"""What a sweep adds to the training of its cells: wall time against the bare sum of training.

Warm: every program is in the folder of compiled programs, for the cells of one seed have run
before. Ray and its workers are started anew in the time that counts, and JAX is imported in each.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from sweeps.runner import cell_status as ledger
from sweeps.runner import run as runner
from sweeps.runner.display import Report
from sweeps.study import Study, StudyError


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """How long `cells` took, `parallel` at a time.

    Attributes:
      seconds: wall time of the sweep, from before Ray starts until it is down.
      train_seconds: of training steps, summed over the cells.
      spent: the other seconds that the cells counted by what they went to, summed over the cells.
    """

    cells: int
    parallel: int
    seconds: float
    train_seconds: float
    spent: dict[str, float]

    @property
    def ratio(self) -> float:
        """Wall time over the least that so many cores could train the cells in."""
        return self.seconds * self.parallel / self.train_seconds


def overhead(study: Study, folder: Path, *, parallel: int, report: Report) -> Overhead:
    """Runs the cells of one seed, then all cells of `study`, and times these.

    Arguments:
      folder: for data and records.

    Raises:
      StudyError: a cell failed, or the run was interrupted.
    """
    here = dataclasses.replace(study.execution_of(study.cells[0]), data_root=str(folder / "data"))
    study = dataclasses.replace(study, execution=here)
    first = tuple(c for c in study.cells if c.seed == study.cells[0].seed)
    report.line(f"warming: {len(first)} cells, so that every program has been compiled")
    _run(dataclasses.replace(study, cells=first), folder / "warm", parallel, report)
    report.line(f"timing: {len(study.cells)} cells")
    result = _run(study, folder / "timed", parallel, report)
    spent: dict[str, float] = {}
    for entry in ledger.read(study, folder / "timed"):
        for what, seconds in entry.done["seconds"].items():
            if what not in ("total", "train"):
                spent[what] = spent.get(what, 0.0) + seconds
    return Overhead(
        cells=len(study.cells),
        parallel=result.parallel,
        seconds=result.seconds,
        train_seconds=result.train_seconds,
        spent={what: seconds for what, seconds in spent.items() if seconds},
    )


def _run(study: Study, root: Path, parallel: int, report: Report) -> runner.Result:
    result = runner.run(study, root, parallel=parallel, report=report)
    if result.exit_code == runner.INTERRUPTED:
        raise KeyboardInterrupt
    if result.exit_code or set(result.states) != {"done"}:
        said = ", ".join(f"{n} {state}" for state, n in result.states.items())
        raise StudyError(f"nothing was timed: of the cells {said}; `study doctor` may say why")
    return result
