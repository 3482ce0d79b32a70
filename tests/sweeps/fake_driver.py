"""Runs a study of fake cells: fake_driver.py ROOT SEED... Writes the result to ROOT/result.json.

A seed may name a machine, as in 3@v4-16; the environment variable ADDRESS then names a cluster, and
DETACH leaves the workers there.
Or it may name how many cores it takes, as in 3@2.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from study.config import Budget, Cell, Execution
from sweeps.runner.display import Lines
from sweeps.runner.run import run
from sweeps.study import Study

STEPS = 20


def study(seeds: list[int | str]) -> Study:
    budget = Budget(steps=STEPS)
    wants = {int(seed): what for seed, _, what in (str(s).partition("@") for s in seeds)}
    cells = tuple(Cell(batch_size=16, seed=seed, budget=budget) for seed in wants)

    def execution(cell: Cell) -> Execution:
        what = wants[cell.seed]
        return Execution(cores=int(what)) if what.isdigit() else Execution(slice=what or None)

    return Study(
        name="fake",
        question="Does it survive?",
        cells=cells,
        execution=execution,
    )


if __name__ == "__main__":
    root = Path(sys.argv[1])
    result = run(
        study(list(sys.argv[2:])),
        root,
        address=os.environ.get("ADDRESS"),
        detach="DETACH" in os.environ,
        entry="fake_cell:train",
        report=Lines(sys.stdout),
    )
    (root / "result.json").write_text(json.dumps({**asdict(result), "ray": "ray" in sys.modules}))
    sys.exit(result.exit_code)
