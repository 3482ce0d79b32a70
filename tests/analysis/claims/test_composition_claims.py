"""Claims about which negatives matter, matched pairs, and the map of pairs, on made frames."""

import pandas as pd
import pytest

from analysis.claims.made_cells import matched_pairs, pairs_map
from tests.analysis.claims.frames import frame, verdict


@pytest.mark.parametrize(
    ("gains", "expected"),
    [((6.0, 1.0), "reproduced"), ((6.0, -1.0), "contradicted"), ((6.0, 0.0), "undecided")],
)
def test_matched_pairs_are_told_from_longer_training(gains, expected):
    cells = frame(matched_pairs(*gains))
    found = verdict("matched pairs help", cells)
    assert (found.verdict, found.cells) == (expected, 9)
    estimates = {part.name: part.estimate for part in found.conditions}
    assert estimates["as many pairs"] == pytest.approx(gains[0], abs=0.3)
    assert found.estimate == estimates["as many examples"] == pytest.approx(gains[1], abs=0.3)
    few = cells["pairs_seen"].where(cells["loss.pairs.kind"] == "all", 1e6)
    assert verdict("matched pairs help", cells.assign(pairs_seen=few)).verdict == "no data"


def test_matched_pairs_alone_may_be_longer_training_alone():
    cells = frame(matched_pairs(6.0, 1.0))
    control = (cells["examples"] == 1e7) & (cells["loss.pairs.kind"] == "all")
    found = verdict("matched pairs help", cells[~control])
    assert found.verdict == "undecided" and found.p < 0.001
    assert "longer training alone" in found.sentence and "all pairs" in found.decide


@pytest.mark.parametrize(
    ("pairs", "examples", "expected"),
    [
        (0.5, 1.5, ("reproduced", "reproduced", "contradicted")),
        (1.5, -0.5, ("reproduced", "contradicted", "reproduced")),
        (0.0, 0.0, ("undecided", "undecided", "undecided")),
    ],
)
def test_the_map_tells_pairs_from_examples(pairs, examples, expected):
    cells = frame(pairs_map(pairs, examples))
    names = ("pairs per example help", "examples per step help", "pairs matter more than examples")
    found = [verdict(name, cells) for name in names]
    assert tuple(one.verdict for one in found) == expected
    truth = (pairs, examples, pairs - examples)
    assert [one.estimate for one in found] == pytest.approx(truth, abs=0.06)


def test_a_map_at_equal_steps_is_one_of_its_own():
    """Both arms share the cells of the largest batch; a search for the rate is in neither."""
    rows = pairs_map(1.0, -1.0, examples=1024.0 * 1024)
    of_steps = pairs_map(1.0, 3.0, equal_steps=1024)
    rows += [row for row in of_steps if row["batch_size"] < 1024]
    search = {"batch_size": 1024, "loss.pairs.kind": "groups", "loss.pairs.size": 16}
    search |= {"examples": 1024.0 * 1024, "seed": 100, "quality": 0.0}
    rows += [search | {"optimizer.learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)]
    cells = frame(rows)
    names = ("examples per step help", "at equal steps: examples per step help")
    at_examples, at_steps = (verdict(name, cells) for name in names)
    ends_of_lines = 3 * 2 * 4 * 2  # seeds, ends, lines of more than one batch size, starts
    assert (at_examples.verdict, at_examples.cells) == ("contradicted", ends_of_lines)
    assert at_examples.estimate == pytest.approx(-1.0, abs=0.06)
    # At equal steps 64 and 256 gain 3 a doubling, and 1,024 has the quality of the other arm.
    assert at_steps.cells == ends_of_lines and "1024 (1,024 steps)" in at_steps.sentence
    assert at_steps.verdict == "contradicted"
    assert verdict("at equal steps: pairs matter more", frame(of_steps)).estimate < 0


def test_a_map_must_hold_from_every_initial_bias():
    rising, falling = pairs_map(1, 0, starts=(-10.0,)), pairs_map(-1, 0, starts=("prior",))
    found = verdict("pairs per example help", frame([*rising, *falling]))
    assert found.verdict == "contradicted" and found.estimate == pytest.approx(-1.0, abs=0.05)
    assert "from b = -10" in found.sentence and "from the prior odds" in found.sentence


@pytest.mark.parametrize(
    ("examples", "sizes_left", "expected"),
    [(1e6, "64 (15,625 steps), 256 (3,906 steps), 1024 (976 steps)", "contradicted"),
     (2.6e5, "64 (4,062 steps), 256 (1,015 steps)", "reproduced"),
     (4e4, None, "undecided")],
)  # fmt: skip
def test_batch_sizes_of_too_few_steps_show_nothing_about_examples_per_step(
    examples, sizes_left, expected
):
    """Quality rises by two points from 64 to 256, and falls by thirty at 1024."""
    rows = pairs_map(1.5, 1.0, examples=examples)
    cells = frame(
        row | {"quality": row["quality"] - 30.0 * (row["batch_size"] == 1024)} for row in rows
    )
    found = verdict("examples per step help", cells)
    assert found.verdict == expected
    if sizes_left:
        assert f"at B = {sizes_left}" in found.sentence
    else:
        assert "500 steps or more" in found.sentence and "longer" in found.decide
    # Pairs per example are compared at equal steps, so on all batch sizes.
    assert verdict("pairs per example help", cells).estimate == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize(
    ("lag", "expected"), [(0.2, "reproduced"), (-0.5, "reproduced"), (-2.0, "contradicted")]
)
def test_a_start_within_the_tolerance_is_as_good(lag, expected):
    cells = frame(pairs_map(0.0, 0.0, prior=lag))
    found = verdict("prior odds start as well", cells)
    assert found.verdict == expected
    assert found.estimate == pytest.approx(lag, abs=0.3)
    assert {part.name.partition(",")[0] for part in found.conditions} == {
        f"B = {size}" for size in pd.unique(cells["batch_size"])
    }


def test_seeds_that_search_for_a_rate_say_nothing_of_the_start():
    cells = frame(pairs_map(0.0, 0.0, prior=0.2))
    searched = [
        frame(pairs_map(0.0, 0.0, prior=-5.0, **{"optimizer.learning_rate": rate})).query(
            "seed == 0"
        )
        for rate in (1e-3, 2e-3, 4e-3)
    ]
    both = pd.concat([cells, *(each.assign(seed=100) for each in searched)], ignore_index=True)
    alone, beside = (verdict("prior odds start as well", frame) for frame in (cells, both))
    assert (beside.verdict, beside.estimate) == (alone.verdict, alone.estimate)
