"""Durations: one conversion, in steps, whatever the suffix."""

from __future__ import annotations

import pytest

from study.config import Adam, Budget
from study.config.budget import schedule_points, to_steps


@pytest.mark.parametrize("batch_size", [16, 512, 32768])
def test_the_three_suffixes_agree(batch_size):
    total = 10_000
    for steps in (1, 7, 500):
        for o in (
            Adam(warmup_steps=steps),
            Adam(warmup_examples=steps * batch_size),
            Adam(warmup_percent=steps / total * 100),
        ):
            assert to_steps(o, "warmup", batch_size=batch_size, total_steps=total) == steps


def test_a_duration_above_zero_is_at_least_one_step():
    got = to_steps(Adam(warmup_percent=0.01), "warmup", batch_size=8, total_steps=100)
    assert got == 1
    assert to_steps(Adam(), "warmup", batch_size=8, total_steps=100) == 0


@pytest.mark.parametrize("given", [{}, {"examples": 1, "pairs": 1}])
def test_a_budget_is_exactly_one_of_three(given):
    with pytest.raises(ValueError, match="exactly one"):
        Budget(**given)


def test_two_warmups_are_refused():
    with pytest.raises(ValueError, match="give one of warmup_steps, warmup_percent"):
        Adam(warmup_steps=3, warmup_percent=5)


@pytest.mark.parametrize("steps", [1, 3, 73, 18750])
@pytest.mark.parametrize("percent", [2, 7, 25, 100])
def test_what_is_due_ends_with_the_last_step(steps, percent):
    due = schedule_points(percent, steps)
    assert due[-1] == steps
    assert due == sorted(set(due))
    assert due[0] >= 1
    assert len(due) <= max(1, round(100 / percent))
