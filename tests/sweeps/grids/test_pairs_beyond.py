"""The study of queues: each is beside what it is compared with, at equal examples and FLOPs."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import pytest

from study.config import Cell
from study.models.flops import step_flops
from sweeps.grids.glyphs.pairs_beyond import EXAMPLES, LARGE, QUEUES
from sweeps.grids.glyphs.recipe import SEEDS, glyphs_cell
from sweeps.registry import load_study

FEWEST_STEPS = 500  # of a batch size that decides a claim


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return list(load_study("pairs-beyond").cells)


def flops(cell: Cell) -> int:
    return cell.steps * step_flops(cell).model


def test_every_queue_has_its_small_and_its_large_batch_at_equal_examples(cells):
    plain = {(c.loss, c.batch_size, c.examples, c.seed) for c in cells}
    stored = [c for c in cells if c.loss.queue_examples and c.examples == EXAMPLES]
    assert len(stored) == 2 * len(QUEUES) * len(SEEDS)
    for c in stored:
        loss = dataclasses.replace(c.loss, queue_examples=0)
        for size in (c.batch_size, c.batch_size + c.loss.queue_examples):
            assert (loss, size, EXAMPLES, c.seed) in plain


def test_the_others_take_the_flops_of_the_large_batch(cells):
    others = [c for c in cells if c.examples != EXAMPLES]
    by_point = defaultdict(set)
    for c in others:
        loss = dataclasses.replace(c.loss, queue_examples=0)
        large = glyphs_cell(batch_size=LARGE, loss=loss, seed=c.seed, examples=EXAMPLES)
        assert large in cells
        assert flops(c) == pytest.approx(flops(large), rel=1e-3)
        assert c.batch_size + c.loss.queue_examples in (LARGE, c.batch_size)
        by_point[c.loss.kind, c.batch_size, c.loss.queue_examples].add(c.seed)
    assert len(by_point) == 8 and set(map(frozenset, by_point.values())) == {frozenset(SEEDS)}


def test_all_batch_sizes_take_enough_steps_and_the_rate_of_their_size(cells):
    for c in cells:
        assert c.steps >= FEWEST_STEPS
        plain = glyphs_cell(batch_size=c.batch_size, loss=type(c.loss)())
        assert c.optimizer == plain.optimizer
