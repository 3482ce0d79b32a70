"""`study branch`: the grid that it writes is a study of branches; what cannot be is one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from study.config import Adam, Budget, Cell, Execution, batch_schedule
from study.config.schedule import schedule
from sweeps.grids.branches import branches
from sweeps.registry import load_study

GRID = """
from sweeps.study import Study
from tests.sweeps.cli.test_branch import HOW, PARENT
def study():
    return Study(name="own", question="Q?", cells=[PARENT], execution=HOW)
"""
PARENT = Cell(
    batch_size=16, budget=Budget(examples=6400), optimizer=Adam(learning_rate=1e-3, warmup_steps=40)
)
HOW = Execution(keep_every_percent=25, wandb=False)
AT = ("--at", "25,50%", "--batch-size", "16,64")


@pytest.fixture
def branch(study):
    Path("own.py").write_text(GRID)
    return lambda *args: study("branch", "own.py", PARENT.id[:-2], *args)


def test_the_grid_holds_the_cell_and_its_branches_in_the_folder_of_its_study(branch, study):
    code, out, err = branch(*AT, "--examples", "640")
    assert (code, err, out.count("\n")) == (0, "", 5)
    file = f"{PARENT.id}-branches.py"
    written = load_study(file)
    parent, *made = written.cells
    assert (parent, written.group, written.execution_of(parent)) == (PARENT, "own", HOW)
    assert [(c.branch.step, c.batch_size, c.steps) for c in made] == [
        *((100, 16, 40), (100, 64, 10), (200, 16, 40), (200, 64, 10)),
    ]
    assert all(cell.id in out for cell in made) and f"study run {file}" in out
    assert study("status", file)[1].count("pending") == 6  # the total too
    assert branch(*AT, "--examples", "640")[:2] == (0, out)  # again, and nothing has changed
    code, _, err = branch(*AT, "--examples", "64")
    assert (code, err.count("\n")) == (2, 1) and "exists and has other branches" in err
    assert load_study(file).cells == written.cells


def test_the_bias_of_branches_follows_their_batch_size(branch):
    assert branch(*AT, "--examples", "640", "--shift-bias", "--out", "shifted.py")[0] == 0
    _, *made = load_study("shifted.py").cells
    shifts = [cell.branch.bias_shift for cell in made]
    assert shifts == pytest.approx([0, np.log(15 / 63)] * 2)


def test_a_cell_of_a_set_is_branched_with_the_same_set(study, branch):
    setting, out = "optimizer.b2=0.99", "set.py"
    name = (
        branches("own.py", "b16", at_percents=(), batch_sizes=(), settings=(setting,)).cells[0].id
    )
    args = ("--at", "50", "--batch-size", "64", "--out", out)
    assert study("branch", "own.py", name, *args, "--set", setting)[0] == 0
    parent, made = load_study(out).cells
    assert parent.id == made.branch.cell == name and made.optimizer.b2 == 0.99
    assert study("branch", "own.py", name, *args)[0] == 2


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--at", "x", "--batch-size", "64"), "--at 'x': give numbers separated by commas"),
        (("--at", "25", "--batch-size", "64.5"), "--batch-size '64.5': give numbers"),
        (("--at", "0", "--batch-size", "64"), "is step 0 of 400"),
        (("--at", "30", "--batch-size", "64"), "of step 120, but of 25 %, 50 %, 75 %, 100 %: give"),
        (("--at", "100", "--batch-size", "64"), "has ended at 100 %; give the examples"),
        (("--at", "100", "--batch-size", "64", "--examples", "640"), "is zero after step 400"),
        (("--at", "25", "--batch-size", "64", "--examples", "32"), "less than one step of 64"),
        (("--at", "25", "--batch-size", "1"), "B = 1 at 25 % of"),
        ((*AT, "--schedule", "continue", "--examples", "6400"), "has 4,800 examples left at 25 %"),
        ((*AT, "--out", "grid.json"), "a grid file ends in .py"),
        ((*AT, "--out", "own.py"), "own.py exists and has other branches"),
    ],
)
def test_branches_that_cannot_be_are_one_line(args, named, branch):
    code, out, err = branch(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err
    assert sorted(path.name for path in Path().glob("*.py")) == ["own.py"]


def test_what_is_kept_counts_and_what_was_not_is_not_waited_for(branch):
    """A cell that was trained with another setting kept other steps."""
    for step in (120, 300):
        (Path("runs/own") / PARENT.id / "checkpoints" / str(step)).mkdir(parents=True)
    assert branch("--at", "30", "--batch-size", "64")[0] == 0
    code, _, err = branch("--at", "50", "--batch-size", "64", "--out", "b.py")
    assert code == 2 and "of step 200, but of 30 %, 75 %, 100 %: give" in err


def test_a_held_branch_has_the_rate_and_decay_of_its_beginning_by_the_rule(branch):
    factor = float(schedule(PARENT)(200))
    for rule, by in {"sqrt": 2.0, "linear": 4.0, "constant": 1.0}.items():
        _, cell = branches(
            *("own.py", "b16"), at_percents=(50,), batch_sizes=(64,), examples=640, rate_rule=rule
        ).cells
        o = cell.optimizer
        assert (o.learning_rate, o.weight_decay) == pytest.approx(
            (1e-3 * factor * by, 1e-4 * factor)
        )
        assert schedule(cell)(0) == schedule(cell)(cell.steps) == 1


def test_a_continued_branch_ends_the_schedule_of_its_cell(branch):
    """At the same batch size it is the rest of the run, whose durations were in steps."""
    _, same, large = branches(
        *("own.py", "b16"), at_percents=(50,), batch_sizes=(16, 64), schedule="continue"
    ).cells
    assert [same.steps, large.steps] == [200, 50]
    steps = range(200)
    assert [schedule(same)(s) for s in steps] == [schedule(PARENT)(200 + s) for s in steps]
    assert schedule(large)(25) == pytest.approx(schedule(PARENT)(300))
    chain = batch_schedule(
        dataclasses.replace(PARENT, optimizer=Adam(warmup_examples=640)),
        ((0, 16), (50, 64)),
        rate=lambda size: 1e-3 * (size / 16) ** 0.5,
    )
    assert large.optimizer == chain[1].optimizer


@pytest.mark.parametrize("shift_bias", [False, True])
def test_the_cells_of_a_grid_of_branches_are_those_of_the_verb(shift_bias):
    """So what one of them has trained is done for the other."""
    study = load_study("critical-batch")
    parent = study.cells[0]
    written = branches(
        *("critical-batch", parent.id), at_percents=(5, 25, 100), examples=65_536,
        batch_sizes=(64, 256, 1024, 4096), shift_bias=shift_bias,
    )  # fmt: skip
    of_parent = [cell for cell in study.cells if cell.branch and cell.branch.cell == parent.id]
    shifted = [cell for cell in of_parent if bool(cell.branch.bias_shift) == shift_bias]
    here = [cell for cell in of_parent if cell.batch_size == parent.batch_size]
    assert {c.id for c in written.cells} == {c.id for c in (parent, *shifted, *here)}
    assert len(written.cells) == 13
