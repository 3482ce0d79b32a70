"""`study bench sweep`: what a sweep adds to the training of its cells."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from study.config import Budget, replace
from sweeps.bench import cells as bench_cells
from sweeps.bench import overhead
from sweeps.runner import cell_status as ledger
from sweeps.runner import run as runner
from sweeps.runner.display import Report
from sweeps.study import Study, StudyError


def small() -> Study:
    """One cell with each of two seeds."""
    first = bench_cells.study().cells[0]
    cells = [replace(first, "budget", Budget(steps=40)), replace(first, "seed", 1)]
    cells[1] = replace(cells[1], "budget", Budget(steps=40))
    return Study(name="small", question="?", cells=tuple(cells), prepare=bench_cells.prepare)


def test_the_ratio_is_to_the_least_that_the_cores_need():
    spent = {"cells": 4, "spent": {"compile": 1.0}}
    found = overhead.Overhead(parallel=2, seconds=11.0, train_seconds=20.0, **spent)
    assert found.ratio == 1.1


def test_a_study_that_was_not_trained_gives_no_figure(tmp_path, monkeypatch):
    failed = runner.Result(study="small", exit_code=1, states={"done": 1, "failed": 1})
    monkeypatch.setattr(runner, "run", lambda *args, **more: failed)
    with pytest.raises(StudyError, match="1 done, 1 failed"):
        overhead.overhead(small(), tmp_path, workers=1, report=Report())


TIMED = """
import json
import sys
from pathlib import Path
from sweeps.bench import overhead
from sweeps.runner.display import Report
from tests.sweeps.bench.test_overhead import small
found = overhead.overhead(small(), Path(sys.argv[1]), workers=1, report=Report())
Path(sys.argv[1], "found.json").write_text(json.dumps(vars(found)))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_only_one_seed_warms_and_all_cells_are_timed(start, tmp_path):
    # In a process of its own: Ray forks, and this one may hold JAX's threads.
    process = start("-c", TIMED, str(tmp_path))
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    found = overhead.Overhead(**json.loads((tmp_path / "found.json").read_text()))
    study = small()
    states = {
        name: [entry.state for entry in ledger.read(study, tmp_path / name)]
        for name in ("warm", "timed")
    }
    assert states == {"warm": ["done", "pending"], "timed": ["done", "done"]}
    assert (found.cells, found.parallel) == (2, 1)
    timed = [entry.done["seconds"] for entry in ledger.read(study, tmp_path / "timed")]
    assert found.train_seconds == pytest.approx(sum(of["train"] for of in timed))
    assert found.spent["compile"] == pytest.approx(sum(of["compile"] for of in timed))
    assert found.seconds > found.train_seconds


def test_what_a_sweep_says_beside_json_is_not_on_standard_output(tmp_path):
    code = """
import sys
from pathlib import Path
from sweeps.ray_cluster.temporary import quiet
from sweeps.runner.display import Lines
report = Lines(sys.stderr)
with quiet(Path("log"), errors=report.errors) as terminal:
    report.open(terminal)
    report.line("starting")
    print("noise of Ray")
    report.close()
print("{}")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("{}\n", "starting\n")
