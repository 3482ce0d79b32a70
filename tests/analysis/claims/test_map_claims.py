"""Claims about examples per step, pairs per example and the start of the bias, on made frames."""

import math

import pytest

from tests.analysis.claims.test_recipe_claims import frame, verdict


def grid(pairs, examples, *, starts=(-10.0, "prior"), prior=0.0):
    """A map whose quality rises by these points for each doubling."""
    return [
        {
            "batch_size": size,
            "loss.b_init": start,
            "loss.pairs.kind": kind,
            "loss.pairs.size": group,
        }
        | {"quality": 30 + pairs * math.log2(group) + examples * math.log2(size) + lag}
        for start, lag in zip(starts, (0.0, prior), strict=False)
        for size in (64, 256, 1024)
        for group in (4, 16, 64, 256, 1024)
        if group <= size
        for kind in ("all" if group == size else "groups",)
    ]


@pytest.mark.parametrize(
    ("pairs", "examples", "expected"),
    [
        (0.5, 1.5, ("reproduced", "reproduced", "contradicted")),
        (1.5, -0.5, ("reproduced", "contradicted", "reproduced")),
        (0.0, 0.0, ("undecided", "undecided", "undecided")),
    ],
)
def test_the_map_parts_pairs_from_examples(pairs, examples, expected):
    cells = frame(grid(pairs, examples))
    names = ("pairs per example help", "examples per step help", "pairs matter more than examples")
    found = [verdict(name, cells) for name in names]
    assert tuple(one.verdict for one in found) == expected
    truth = (pairs, examples, pairs - examples)
    assert [one.estimate for one in found] == pytest.approx(truth, abs=0.06)


def test_a_map_must_hold_from_every_start_of_the_bias():
    rising, falling = grid(1.0, 0.0, starts=(-10.0,)), grid(-1.0, 0.0, starts=("prior",))
    found = verdict("pairs per example help", frame([*rising, *falling]))
    assert found.verdict == "contradicted" and found.estimate == pytest.approx(-1.0, abs=0.05)
    assert "from b = -10" in found.sentence and "from the prior odds" in found.sentence


@pytest.mark.parametrize(
    ("examples", "sizes_left", "expected"),
    [(1e6, "64 (15,625 steps), 256 (3,906 steps), 1024 (976 steps)", "contradicted"),
     (2.6e5, "64 (4,062 steps), 256 (1,015 steps)", "reproduced"),
     (4e4, None, "undecided")],
)  # fmt: skip
def test_batch_sizes_of_too_few_steps_say_nothing_about_examples_per_step(
    examples, sizes_left, expected
):
    """Quality rises by two points from 64 to 256, and falls by thirty at 1024."""
    rows = [
        row
        | {"quality": row["quality"] - 30.0 * (row["batch_size"] == 1024)}
        | {"examples": examples, "budget.examples": examples}
        for row in grid(1.5, 1.0)
    ]
    found = verdict("examples per step help", frame(rows))
    assert found.verdict == expected
    if sizes_left:
        assert f"at B = {sizes_left}" in found.sentence
    else:
        assert "500 steps or more" in found.sentence and "longer" in found.decide
    # Pairs per example are compared at equal steps, so on all batch sizes.
    assert verdict("pairs per example help", frame(rows)).estimate == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize(
    ("lag", "expected"), [(0.2, "reproduced"), (-0.5, "reproduced"), (-2.0, "contradicted")]
)
def test_a_start_within_the_tolerance_is_as_good(lag, expected):
    found = verdict("prior odds start as well", frame(grid(0.0, 0.0, prior=lag)))
    assert found.verdict == expected
    assert found.estimate == pytest.approx(lag, abs=0.3)
