"""Claims about branches and batch warm-up, on made frames."""

import numpy as np
import pandas as pd
import pytest

from analysis.claims.made_cells import VAL_LOSS, branch_cells, make_cells, warm_up
from analysis.claims.truths_of_branches import EARLY, FEW, LATE, MANY, MORE
from analysis.select.branches import branch_points, warm_ups
from tests.analysis.claims.frames import frame, verdict

GROWS, WARM_UP = "local critical batch grows", "batch warm-up is ahead"
LOSSES = ("sigmoid", "softmax")


def of_losses(early, late):
    return branch_cells({loss: {EARLY: early, LATE: late} for loss in LOSSES})


@pytest.mark.parametrize(
    ("early", "late", "expected"),
    [(FEW, MANY, "reproduced"), (MANY, FEW, "contradicted"), (MORE, MORE, "undecided")],
)
def test_growth_of_the_local_critical_batch_is_told_from_none(early, late, expected):
    found = verdict(GROWS, frame(of_losses(early, late), sd=0.002))
    assert (found.verdict, found.unit, found.cells) == (expected, "doublings", 48)
    assert "From 52,000 to 1,000,000 examples" in found.sentence
    assert len(found.conditions) == 2


def test_it_must_grow_for_both_losses():
    rows = branch_cells({"sigmoid": {EARLY: MORE, LATE: MORE}, "softmax": {EARLY: FEW, LATE: MANY}})
    assert verdict(GROWS, frame(rows, sd=0.002)).verdict == "undecided"
    alone = [row for row in rows if row.get("loss.kind") == "softmax"]
    assert verdict(GROWS, frame(alone, sd=0.002)).verdict == "reproduced"
    one_point = [row for row in rows if row["branch.examples"] == EARLY]
    assert verdict(GROWS, frame(one_point)).verdict == "no data"


def test_growth_from_beyond_the_largest_size_cannot_be_seen():
    level = dict.fromkeys(MORE, 1.5)
    found = verdict(GROWS, frame(of_losses(level, MORE), sd=0.0001))
    assert found.verdict == "undecided" and found.withheld
    assert "no batch size is too large" in found.sentence and "larger batch" in found.decide


def test_losses_are_smoothed_over_the_evaluations_that_were_logged():
    """Without rows the last loss counts; here earlier ones were as late ones of the other point."""
    cells = make_cells(of_losses(FEW, MANY))
    swapped = dict(zip(cells["id"], make_cells(of_losses(MANY, FEW))[VAL_LOSS], strict=True))
    rows = pd.DataFrame(
        [
            {"id": name, "step": step, VAL_LOSS: value}
            for name, last in zip(cells["id"], cells[VAL_LOSS], strict=True)
            for step, value in ((9, last), (1, swapped[name]), (2, swapped[name]))
        ]
    )
    assert verdict(GROWS, cells).estimate > 1
    found = verdict(GROWS, cells, read_rows=lambda: rows)
    assert found.estimate == pytest.approx(0, abs=1e-6)  # the newest has half of the weight


def test_only_branches_with_a_schedule_of_their_own_are_points():
    cells = make_cells([*of_losses(FEW, MANY), *warm_up({256: 0.0, 1024: 0.0})])
    points = branch_points(cells).done
    assert len(points) == 48 and points["optimizer.schedule_examples"].isna().all()


@pytest.mark.parametrize(
    ("leads", "expected"),
    [
        ({256: 3.0, 1024: 1.0}, "reproduced"),
        ({256: 3.0, 1024: 0.0}, "undecided"),
        ({256: 3.0, 1024: -1.0}, "contradicted"),
    ],
)
def test_a_warm_up_is_compared_with_each_of_its_sizes(leads, expected):
    found = verdict(WARM_UP, frame(warm_up(leads)))
    assert found.verdict == expected
    estimates = {part.name: part.estimate for part in found.conditions}
    assert len(estimates) == 4
    for size, lead in leads.items():
        name = f"softmax: B = 256, 1024 against {size}"
        assert estimates[name] == pytest.approx(lead, abs=0.3)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer.learning_rate": 0.3},
        {"budget.examples": 2.0**17},
        {"optimizer.b2": 0.9},
        {"seed": 9},
    ],
)
def test_a_constant_run_differs_from_a_warm_up_in_its_batch_size_alone(change):
    cells = make_cells(warm_up({256: 3.0, 1024: 1.0})).assign(**{"optimizer.b2": 0.95})
    assert len(warm_ups(cells)) == 12
    constant = cells["optimizer.schedule_examples"].isna() & (cells["batch_size"] == 1024)
    for column, value in change.items():
        cells.loc[constant, column] = value
    pairs = warm_ups(cells)
    assert set(pairs["batch_size"]) == {256} and len(pairs) == 6


def test_branches_with_a_shifted_bias_are_an_arm_of_their_own():
    """They share the branches at the parent's batch size, where there is nothing to shift."""
    both = branch_cells({"sigmoid": {EARLY: FEW, LATE: MANY}})
    shifted = [
        row | {"branch.bias_shift": -float(np.log(row["batch_size"] / 64))}
        for row in branch_cells({"sigmoid": {EARLY: MANY, LATE: MANY}})
        if row["batch_size"] > 64
    ]
    found = verdict(GROWS, frame(both + shifted, sd=0.002))
    rises = {part.name: part.estimate for part in found.conditions}
    assert rises["sigmoid"] > 2
    assert rises["sigmoid, shifted bias"] == pytest.approx(0, abs=0.1)
    assert (found.verdict, found.cells) == ("undecided", 24 + 18)


def test_a_warm_up_with_a_shifted_bias_is_an_arm_of_its_own():
    rows = warm_up({256: 3.0, 1024: 1.0}, shift=-1.4)
    assert set(warm_ups(make_cells(rows))["arm"]) == {"sigmoid, shifted bias", "softmax"}
    names = {part.name for part in verdict(WARM_UP, frame(rows)).conditions}
    assert "sigmoid, shifted bias: B = 256, 1024 against 256" in names and len(names) == 4


def test_a_chain_that_has_not_ended_is_no_warm_up():
    cells = make_cells(warm_up({256: 3.0, 1024: 1.0}))
    assert warm_ups(cells.assign(examples=cells["examples"] / 2)).empty
    assert verdict(WARM_UP, cells[cells["branch.cell"].isna()]).verdict == "no data"
