"""Runs a study of fake cells: fake_driver.py ROOT SEED... Writes the result to ROOT/result.json."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from study.cell import Budget, Cell
from sweeps.grid import Study
from sweeps.report import Lines
from sweeps.runner import run

STEPS = 20


def study(seeds: list[int]) -> Study:
    budget = Budget(steps=STEPS)
    cells = tuple(Cell(batch_size=16, seed=seed, budget=budget) for seed in seeds)
    return Study(name="fake", question="Does it survive?", cells=cells)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    result = run(
        study([int(seed) for seed in sys.argv[2:]]),
        root,
        entry="fake_cell:train",
        report=Lines(sys.stdout),
        backoff=0.2,
    )
    (root / "result.json").write_text(json.dumps({**asdict(result), "ray": "ray" in sys.modules}))
    sys.exit(result.exit_code)
