"""What keeps a comparison undecided whatever its interval: rates, floors, too few batch sizes."""

import pytest

from analysis.claims import judge_study
from analysis.select.panels import TOP1
from study.config.budget import Budget
from study.config.cell import Adam

SIZES = (16, 64, 256, 1024)
AHEAD, CLOSES, LEVEL = (
    "sigmoid ahead at small batch",
    "gap closes with batch",
    "losses level at large batch",
)
VALIDATION = "eval/zero_shot/val_font/top1"
RATE = 5e-3  # of the panels, see `conftest.make_cell`
SEARCHED = (0.5 * RATE, RATE, 2 * RATE)


def panel(writer, sigmoid=(30.0, 34.0, 38.0, 40.0), gaps=(5.0, 4.0, 2.0, 0.0), sizes=SIZES):
    quality = dict(zip(sizes, sigmoid, strict=True))
    softmax = {size: quality[size] - gap for size, gap in zip(sizes, gaps, strict=True)}
    writer.batch_panel(quality, softmax, sd=0.1)


def search(writer, size, loss, qualities, *, seed=100, rates=SEARCHED, examples=100_000):
    """Cells of one seed at several rates, a third as long as the panel's."""
    for rate, quality in zip(rates, qualities, strict=True):
        optimizer = Adam(learning_rate=rate, warmup_percent=5.0)
        budget = Budget(examples=examples)
        cell = writer.cell(size, loss, seed, optimizer=optimizer, budget=budget)
        writer.done(cell, quality)


def found(writer):
    return {one.name: one for one in judge_study(writer.root, writer.study)}


def test_a_comparison_says_whether_rates_were_tried(writer):
    panel(writer)
    untried = found(writer)[AHEAD]
    assert untried.verdict == "reproduced"
    assert "No other learning rates of these cells are in the records." in untried.sentence
    for loss in ("sigmoid", "softmax"):
        search(writer, 16, loss, (20.0, 25.0, 24.0))
    tuned = found(writer)[AHEAD]
    assert (tuned.verdict, tuned.estimate, tuned.low) == (
        untried.verdict,
        untried.estimate,
        untried.low,
    )
    assert "Of 3 rates tried at B = 16 none was more than 1 point better" in tuned.sentence


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_a_loss_at_the_wrong_rate_decides_nothing(writer, loss):
    panel(writer)
    search(writer, 16, loss, (20.0, 22.0, 25.0))
    shown = found(writer)
    for name in (AHEAD, CLOSES):
        assert shown[name].verdict == "undecided"
        assert (
            f"at B = 16 {loss} ran at 0.005, and 0.01 was 3.00 points better in a search of "
            "100,000 examples"
        ) in shown[name].sentence
        assert "tuned for each loss at each batch size" in shown[name].decide
    assert shown[LEVEL].verdict == "reproduced"  # is not about B = 16
    assert shown["quality saturates"].verdict == "contradicted"  # compares no losses: decided


def test_a_search_at_the_next_batch_size_stands_in_for_one_that_is_missing(writer):
    panel(writer)
    search(writer, 64, "sigmoid", (20.0, 22.0, 25.0))
    shown = found(writer)
    assert shown[AHEAD].verdict == "undecided"
    assert "at B = 64, the nearest size with a search, sigmoid ran at" in shown[AHEAD].sentence
    assert shown[LEVEL].verdict == "reproduced"  # B = 1024, two sizes away
    # Its own search comes first.
    search(writer, 16, "sigmoid", (20.0, 22.0, 19.0))
    assert found(writer)[AHEAD].verdict == "reproduced"


def test_a_difference_within_the_tolerance_is_no_better_rate(writer):
    panel(writer)
    search(writer, 16, "sigmoid", (20.0, 22.0, 22.9))
    assert found(writer)[AHEAD].verdict == "reproduced"


def test_two_rates_or_another_configuration_are_no_search(writer):
    panel(writer)
    search(writer, 16, "sigmoid", (22.0, 25.0), rates=SEARCHED[1:])
    for rate, quality in zip(SEARCHED, (20.0, 22.0, 25.0), strict=True):
        other = Adam(learning_rate=rate, warmup_percent=5.0, weight_decay=0.5)
        writer.done(writer.cell(16, "sigmoid", 100, optimizer=other), quality)
    assert found(writer)[AHEAD].verdict == "reproduced"


def test_the_validation_font_picks_the_rate_where_it_was_measured(writer):
    """The font that the claim is judged by must not pick the rate."""
    panel(writer)
    for rate, test, validation in zip(SEARCHED, (20, 22, 25), (20, 22, 21), strict=True):
        optimizer = Adam(learning_rate=rate, warmup_percent=5.0)
        cell = writer.cell(16, "sigmoid", 100, optimizer=optimizer)
        writer.measured(cell, {TOP1: float(test), VALIDATION: float(validation)})
    assert found(writer)[AHEAD].verdict == "reproduced"


def test_batch_sizes_at_which_nothing_was_learned_enter_no_gap(writer):
    """Near zero the losses are level, which is no sign that a gap has closed."""
    panel(writer, sigmoid=(30.0, 30.0, 30.0, 1.0), gaps=(3.0, 3.0, 3.0, 0.0))
    shown = found(writer)
    assert shown[CLOSES].verdict == "undecided"
    assert "B = 256 is" in shown[CLOSES].sentence
    assert shown[LEVEL].verdict == "contradicted"  # by three points, at B = 256
    for name in (AHEAD, CLOSES, LEVEL):
        assert "left out, as neither loss has learned much there: B = 1024" in shown[name].sentence


def test_a_gap_needs_two_batch_sizes_at_which_something_was_learned(writer):
    panel(writer, sigmoid=(30.0, 2.0), gaps=(3.0, 0.0), sizes=(64, 4096))
    shown = found(writer)
    for name in (CLOSES, LEVEL):
        assert shown[name].verdict == "undecided"
        assert "at B = 4096 both are below 25% of the best quality" in shown[name].sentence
        assert "longer budget" in shown[name].decide
    assert shown[AHEAD].verdict == "reproduced"


def test_one_loss_that_learns_keeps_its_batch_size(writer):
    panel(writer, sigmoid=(30.0, 30.0, 30.0, 30.0), gaps=(3.0, 3.0, 3.0, 29.0))
    assert "left out" not in found(writer)[CLOSES].sentence
    assert found(writer)[CLOSES].verdict == "contradicted"


@pytest.mark.parametrize(("sizes", "expected"), [((16, 64), "undecided"), (SIZES, "reproduced")])
def test_two_batch_sizes_show_no_plateau(writer, sizes, expected):
    panel(writer, [30.0] * len(sizes), [0.0] * len(sizes), sizes)
    saturates = found(writer)["quality saturates"]
    assert saturates.verdict == expected
    assert saturates.estimate == 16
    if expected == "undecided":
        assert saturates.decide == "3 batch sizes or more"
