"""A batch size that changes during a run, as a chain of cells."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from study.config import (
    Adam,
    Budget,
    Cell,
    CellError,
    batch_schedule,
    branch_from,
    from_dict,
    to_dict,
)
from study.config.schedule import schedule

RUN = Cell(budget=Budget(examples=65_536), batch_size=64, optimizer=Adam(warmup_percent=10))
SIZES = ((0, 64), (10, 256), (50, 1024))


def rate(batch_size: int) -> float:
    return 1e-3 * (batch_size / 64) ** 0.5


def test_the_cells_of_a_chain_follow_each_other_to_the_end_of_the_run():
    chain = batch_schedule(RUN, SIZES, rate=rate)
    assert [cell.batch_size for cell in chain] == [64, 256, 1024]
    assert [cell.optimizer.learning_rate for cell in chain] == [1e-3, 2e-3, 4e-3]
    assert 0 <= 65_536 - sum(cell.examples for cell in chain) < 1024
    for before, cell in itertools.pairwise(chain):
        assert (cell.branch.cell, cell.branch.step) == (before.id, before.steps)
        assert cell.origin == before.origin + before.examples
    assert from_dict(to_dict(chain[1])) == chain[1]
    assert len({cell.id for cell in (*chain, RUN)}) == 4


def test_a_batch_size_ends_with_the_nearest_step_and_the_run_without_the_last_partial_one():
    chain = batch_schedule(RUN, ((0, 100), (10, 3000)), rate=rate)
    assert [cell.steps for cell in chain] == [66, 19]  # 6,553.6 / 100, and 58,936 / 3,000


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "rsqrt"])
def test_the_schedule_of_a_chain_is_that_of_the_whole_run_at_the_same_examples(name):
    more = {"timescale_percent": 20} if name == "rsqrt" else {}
    optimizer = Adam(schedule=name, warmup_percent=10, cooldown_percent=5, **more)
    run = dataclasses.replace(RUN, optimizer=optimizer)
    whole = schedule(run)
    for cell in batch_schedule(run, SIZES, rate=rate):
        steps = np.arange(cell.steps)
        examples = cell.origin + steps * cell.batch_size
        # Warm-up and cooldown are whole steps of each batch size.
        np.testing.assert_allclose(schedule(cell)(steps), whole(examples / 64), atol=0.15)
        exact = (examples > 8000) & (examples < 60_000)
        tolerance = {"atol": 0.01, "rtol": 0.02}
        np.testing.assert_allclose(
            schedule(cell)(steps)[exact], whole(examples[exact] / 64), **tolerance
        )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((), "begin at 0"),
        (((10, 64),), "begin at 0 and stay below 100"),
        (((0, 64), (100, 256)), "begin at 0 and stay below 100"),
        (((0, 64), (50, 256), (20, 1024)), "B = 256 ends at 20 %"),
        (((0, 64), (99, 1024)), "B = 1024 ends at 100 % of 65536 examples, less than a step"),
    ],
)
def test_percents_that_do_not_rise_are_one_line(sizes, message):
    with pytest.raises(CellError, match=message) as error:
        batch_schedule(RUN, sizes, rate=rate)
    assert "\n" not in str(error.value)


def test_a_chain_is_of_a_run_counted_in_examples():
    branch = branch_from(RUN, percent=50, batch_size=64, budget=Budget(examples=640))
    for run in (branch, dataclasses.replace(RUN, budget=Budget(steps=9))):
        with pytest.raises(CellError, match="is not a branch"):
            batch_schedule(run, SIZES, rate=rate)


def test_a_schedule_is_not_shorter_than_its_cell_and_not_in_steps():
    with pytest.raises(ValueError, match="65536 examples that were seen when the cell ends"):
        dataclasses.replace(RUN, optimizer=Adam(schedule_examples=65_000))
    with pytest.raises(ValueError, match="give warmup_examples or warmup_percent"):
        Adam(schedule_examples=65_536, warmup_steps=10)
