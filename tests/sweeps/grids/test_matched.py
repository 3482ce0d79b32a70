"""Cells that are declared to match: the solver makes them, and a study that is wrong is refused."""

from __future__ import annotations

import pytest

from study.config import Budget, Cell, Groups, Negatives, Sigmoid
from sweeps.study import Matched, Study, StudyError, count_per_step, count_seen, match_budget

WHOLE = Cell(batch_size=256, budget=Budget(examples=100_000))


def masked(budget: Budget, per_positive: float = 4.0) -> Cell:
    pairs = Negatives(keep="hard", per_positive=per_positive)
    return Cell(batch_size=256, loss=Sigmoid(pairs=pairs), budget=budget)


def study(*cells: Cell, matched: tuple[Matched, ...]) -> Study:
    return Study(name="s", question="?", cells=cells, matched=matched)


@pytest.mark.parametrize("by", ["pairs", "examples"])
@pytest.mark.parametrize("other", [masked(Budget(steps=1)), Cell(batch_size=64), Cell(
    batch_size=512, loss=Sigmoid(pairs=Groups(size=8)))])  # fmt: skip
def test_the_solver_finds_the_budget_that_matches(by, other):
    import dataclasses

    solved = dataclasses.replace(other, budget=match_budget(WHOLE, by))
    assert abs(count_seen(solved, by) - count_seen(WHOLE, by)) < count_per_step(solved, by)
    study(WHOLE, solved, matched=(Matched(by=by, cells=(WHOLE, solved)),))


def test_a_study_whose_labels_say_matched_while_the_numbers_differ_is_refused():
    same_examples = masked(Budget(examples=100_000))
    study(WHOLE, same_examples, matched=(Matched(by="examples", cells=(WHOLE, same_examples)),))
    with pytest.raises(StudyError, match=r"match in pairs, but have .* give the second"):
        study(WHOLE, same_examples, matched=(Matched(by="pairs", cells=(WHOLE, same_examples)),))


def test_labels_speak_of_cells_of_the_study():
    other = masked(match_budget(WHOLE, "pairs"))
    with pytest.raises(StudyError, match="is not a cell of the study"):
        study(WHOLE, matched=(Matched(by="pairs", cells=(WHOLE, other)),))
    with pytest.raises(StudyError, match="two cells or more"):
        study(WHOLE, matched=(Matched(by="pairs", cells=(WHOLE,)),))
