"""Claims about batch size, duration and languages, on made frames."""

import numpy as np
import pytest

from analysis.claims.batch import BatchPanel, too_large_hurts
from analysis.stats.intervals import group_means
from tests.analysis.claims.frames import (
    SOFTMAX,
    VALIDATION,
    batch_panel,
    frame,
    verdict,
    verdicts,
)

SIZES = (16, 64, 256, 1024, 4096)
PEAKED = dict(zip(SIZES, (34.0, 40.0, 44.0, 44.2, 41.0), strict=True))
CLOSING = (5.0, 4.0, 2.0, 0.5, 0.0)
AHEAD, CLOSES, LEVEL = (
    "sigmoid ahead at small batch",
    "gap closes with batch",
    "losses level at large batch",
)
SATURATES = "quality saturates"


def test_estimates_and_counts_are_those_of_the_cells():
    flat = dict.fromkeys(SIZES, 30.0)
    found = verdicts(frame(batch_panel(flat, (5.0, 4.0, 2.0, 0.5, -1.0)), sd=0.0))
    small = found[AHEAD]
    assert (small.estimate, small.cells, small.unit) == (pytest.approx(5.0), 6, "points")
    assert "B = 16 " in small.sentence
    assert (found[CLOSES].estimate, found[CLOSES].cells) == (pytest.approx(6.0), 12)


def test_diverged_and_failed_cells_enter_no_estimate():
    panel = batch_panel(PEAKED, CLOSING)
    lost = [
        {"batch_size": 16, "quality": 0.0, "status": "diverged", "seed": 7},
        SOFTMAX | {"batch_size": 16, "quality": 99.0, "seed": 7},  # unpaired: in no difference
        {"batch_size": 4096, "quality": float("nan"), "status": "failed", "seed": 7},
    ]
    assert verdict(AHEAD, frame([*panel, *lost])) == verdict(AHEAD, frame(panel))


@pytest.mark.parametrize(
    ("sd", "gap", "expected"),
    [(6.0, 0.0, "undecided"), (0.05, 0.0, "reproduced"), (0.05, 3.0, "contradicted")],
)
def test_a_level_gap_must_be_shown_not_merely_unseen(sd, gap, expected):
    cells = frame(batch_panel(dict.fromkeys(SIZES, 30.0), (gap,) * 5), sd=sd, seeds=2)
    assert verdict(LEVEL, cells).verdict == expected


def test_the_saturation_batch_has_an_interval_that_holds_it():
    batch = verdict(SATURATES, frame(batch_panel(PEAKED)))
    assert batch.low <= batch.estimate == 256 <= batch.high < 4096


def test_the_best_of_equal_batches_is_not_taken_for_an_effect():
    """With no effect at all, a false "hurts" must stay rare although the best is picked."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        groups = {("sigmoid", size): rng.standard_normal(2) for size in SIZES}
        panel = BatchPanel(quality=group_means(groups), gaps=group_means({}))
        wrong += too_large_hurts(panel).verdict == "reproduced"
    assert wrong / 400 < 0.06


@pytest.mark.parametrize(("sizes", "expected"), [((16, 64), "undecided"), (SIZES, "reproduced")])
def test_two_batch_sizes_show_no_plateau(sizes, expected):
    saturates = verdict(SATURATES, frame(batch_panel(dict.fromkeys(sizes, 30.0))))
    assert (saturates.verdict, saturates.estimate) == (expected, 16)
    assert saturates.decide == ("3 batch sizes or more" if expected == "undecided" else "")


# --- learning rates ---

RATES = (5e-4, 1e-3, 2e-3)  # the middle one is the panel's
RISING = dict(zip((16, 64, 256, 1024), (30.0, 34.0, 38.0, 40.0), strict=True))
PANEL = batch_panel(RISING, (5.0, 4.0, 2.0, 0.0))


def search(size, qualities, *, rates=RATES, **fields):
    """Cells of one seed at several rates, a third as long as the panel's."""
    return [
        {"batch_size": size, "seed": 100, "examples": 3e5, "quality": quality}
        | {"optimizer.learning_rate": rate}
        | fields
        for rate, quality in zip(rates, qualities, strict=True)
    ]


def judged(*searches):
    rows = [*PANEL, *(row for rows in searches for row in rows)]
    cells = frame(rows)
    searched = cells["seed"] == 100  # without noise
    cells.loc[searched, "eval/zero_shot/test_font/top1"] = [
        row["quality"] for row in rows if "seed" in row
    ]
    return verdicts(cells, (AHEAD, CLOSES, LEVEL, SATURATES))


def test_a_comparison_says_whether_rates_were_tried():
    untried = judged()[AHEAD]
    assert untried.verdict == "reproduced"
    assert "The records hold no other learning rates of these cells." in untried.sentence
    within = (20.0, 22.0, 22.9)  # a difference within the tolerance is no better rate
    tuned = judged(search(16, within), search(16, within, **SOFTMAX))[AHEAD]
    assert (tuned.verdict, tuned.estimate) == (untried.verdict, untried.estimate)
    assert "Of 3 rates tried at B = 16 none was more than 1 point better" in tuned.sentence


@pytest.mark.parametrize(("loss", "fields"), [("sigmoid", {}), ("softmax", SOFTMAX)])
def test_a_loss_at_the_wrong_rate_decides_nothing(loss, fields):
    found = judged(search(16, (20.0, 22.0, 25.0), **fields))
    for name in (AHEAD, CLOSES):
        assert found[name].verdict == "undecided"
        assert (
            f"at B = 16 {loss} ran at 0.001, and 0.002 was 3.00 points better in a search of "
            "300,000 examples"
        ) in found[name].sentence
        assert "tuned for each loss at each batch size" in found[name].decide
    assert found[LEVEL].verdict == "reproduced"  # is not about B = 16
    assert found[SATURATES].verdict == "contradicted"  # compares no losses: decided


def test_a_search_at_the_next_batch_size_stands_in_for_one_that_is_missing():
    neighbour = search(64, (20.0, 22.0, 25.0))
    found = judged(neighbour)
    assert found[AHEAD].verdict == "undecided"
    assert "at B = 64, the nearest size with a search, sigmoid ran at" in found[AHEAD].sentence
    assert found[LEVEL].verdict == "reproduced"  # B = 1024, two sizes away
    assert judged(neighbour, search(16, (20.0, 22.0, 19.0)))[AHEAD].verdict == "reproduced"


def test_what_is_no_search():
    better = (20.0, 22.0, 25.0)
    others = [
        search(16, better[1:], rates=RATES[1:]),  # two rates
        search(16, better, **{"optimizer.weight_decay": 0.5}),  # another configuration
        # The font that the claim is judged by must not pick the rate.
        [
            row | {VALIDATION: value}
            for row, value in zip(search(16, better), (20.0, 22.0, 21.0), strict=True)
        ],
    ]
    for rows in others:
        assert judged(rows)[AHEAD].verdict == "reproduced"


# --- batch sizes at which nothing was learned ---


def test_batch_sizes_at_which_nothing_was_learned_enter_no_gap():
    """Near zero the losses are level, which is no sign that a gap has closed."""
    sigmoid = dict(zip(RISING, (30.0, 30.0, 30.0, 1.0), strict=True))
    found = verdicts(frame(batch_panel(sigmoid, (3.0, 3.0, 3.0, 0.0))))
    assert found[CLOSES].verdict == "undecided"
    assert "B = 256 is" in found[CLOSES].sentence
    assert found[LEVEL].verdict == "contradicted"  # by three points, at B = 256
    for name in (AHEAD, CLOSES, LEVEL):
        assert "B = 1024 left out: neither loss has learned much there" in found[name].sentence


def test_a_gap_needs_two_batch_sizes_at_which_something_was_learned():
    found = verdicts(frame(batch_panel({64: 30.0, 4096: 2.0}, (3.0, 0.0))))
    for name in (CLOSES, LEVEL):
        assert found[name].verdict == "undecided"
        assert "at B = 4096 both are below 25% of the best quality" in found[name].sentence
        assert "longer budget" in found[name].decide
    assert found[AHEAD].verdict == "reproduced"


def test_one_loss_that_learns_keeps_its_batch_size():
    closes = verdict(CLOSES, frame(batch_panel(dict.fromkeys(RISING, 30.0), (3.0, 3.0, 3.0, 29.0))))
    assert closes.verdict == "contradicted" and "left out" not in closes.sentence


# --- duration ---

LONG = "large batch needs long training"


def by_budget(short, long):
    return [
        {"batch_size": size, "examples": n, "quality": quality}
        for n, qualities in ((1e5, short), (1e7, long))
        for size, quality in qualities.items()
    ]


def test_a_large_batch_that_wins_only_when_trained_long():
    def judged(short_gap, long_gap):
        rows = by_budget(*({128: 40, 512: 40.3, 4096: 40 + gap} for gap in (short_gap, long_gap)))
        return verdict(LONG, frame(rows))

    found = judged(-8.0, 2.0)
    assert found.verdict == "reproduced"
    assert "B = 4096 (32 times B = 128) minus B = 128 is -7.9" in found.sentence
    assert "(24 steps at B = 4096)" in found.sentence
    assert judged(-8.0, -2.0).verdict == judged(1.0, 2.0).verdict == "contradicted"
    one_budget = verdict(LONG, frame(by_budget({}, {128: 40.0, 4096: 42.0})))
    assert one_budget.verdict == "no data" and "budget.examples" in one_budget.decide


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [
        # The largest has too few steps even in the long run; the middle one crosses.
        ((40.0, 30.0, 10.0), (60.0, 63.0, 50.0), "reproduced"),
        ((40.0, 30.0, 10.0), (60.0, 55.0, 50.0), "contradicted"),
        ((40.0, 39.95, 39.9), (60.0, 60.05, 60.1), "undecided"),
    ],
)
def test_the_best_batch_may_grow_though_the_largest_never_pays(short, long, expected):
    sizes = (128, 512, 4096)
    cells = frame(by_budget(*(dict(zip(sizes, q, strict=True)) for q in (short, long))))
    found = verdict("best batch grows with the budget", cells)
    assert found.verdict == expected
    if expected == "reproduced":
        assert "the clearest is B = 512" in found.sentence
        assert found.estimate == pytest.approx(3.0, abs=0.3)
        assert verdict(LONG, cells).verdict == "contradicted"


# --- languages ---


@pytest.mark.parametrize(
    ("sizes", "recalls", "expected"),
    [
        # A quarter of the way up a grid of four is its smallest size.
        ((16, 64, 256, 1024), (30.0, 34.0, 34.1, 33.0), ("contradicted", "Beyond B = 16")),
        ((16_384, 32_768, 65_536), (34.8, 34.9, 34.4), ("reproduced", "the paper's 32k")),
        ((16_384, 32_768, 65_536), (30.0, 34.0, 38.0), ("contradicted", "the paper's 32k")),
    ],
)
def test_languages_gain_nothing_past_the_papers_32k_or_the_grids_own(sizes, recalls, expected):
    rows = batch_panel(dict(zip(sizes, recalls, strict=True)))
    recall = "eval/multilingual_retrieval/xm3600/test/text_to_image_r1"
    found = verdict("languages gain nothing past 32k", frame(rows, metric=recall))
    assert found.verdict == expected[0] and expected[1] in found.sentence
