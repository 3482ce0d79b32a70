"""Claims about queues and about false negatives, on made frames."""

import pytest

from analysis.claims.made_cells import queue_matches, same_captions
from analysis.select.fields import TOP1
from tests.analysis.claims.frames import frame, verdict

QUEUE, AT_FLOPS = "a queue is a large batch", "a queue is a large batch at equal FLOPs"
COST, STOP = "false negatives cost more in a large batch", "false negatives stop the gain"


@pytest.mark.parametrize(
    ("sigmoid", "softmax", "expected"),
    [
        ((4.0, 4.0), (5.0, 4.0), "reproduced"),
        ((4.0, 4.0), (2.0, 4.0), "contradicted"),
        ((2.0, 0.0), (2.0, 0.0), "undecided"),  # nothing to make up
    ],
)
def test_a_queue_must_have_what_the_large_batch_has_with_both_losses(sigmoid, softmax, expected):
    cells = frame(queue_matches(sigmoid=sigmoid, softmax=softmax))
    for name in (QUEUE, AT_FLOPS):
        found = verdict(name, cells)
        assert (found.verdict, found.cells) == (expected, 30)
        assert "64 + 192 = 256, 64 + 960 = 1024" in found.sentence
    margins = [queue - 0.75 * large for queue, large in (sigmoid, softmax)]
    assert [part.estimate for part in found.conditions] == pytest.approx(margins, abs=0.3)


def test_a_small_batch_in_two_matches_counts_once_with_all_its_variance():
    """Of one loss: its mean enters both matches, so with twice the weight of a queue's."""
    cells = frame(queue_matches(sigmoid=(3.0, 4.0)))
    small = cells["batch_size"].eq(64) & cells["loss.queue_examples"].eq(0)
    noisy = cells.assign(**{TOP1: cells[TOP1] + 3.0 * small * (cells["seed"] - 1)})
    found, before = verdict(QUEUE, noisy), verdict(QUEUE, cells)
    # Of variance 9 over 3 seeds, times a quarter squared.
    width = (found.high - found.low) / (before.high - before.low)
    assert found.estimate == pytest.approx(before.estimate) and width > 3


def test_runs_of_unequal_examples_or_flops_are_no_match():
    rows = queue_matches(sigmoid=(4.0, 4.0), softmax=(4.0, 4.0))
    longer = [row | {"examples": 2e6 if row["loss.queue_examples"] else 1e6} for row in rows]
    assert verdict(QUEUE, frame(longer)).verdict == "no data"
    costly = [row | {"flops.loss": 1e3 * row["loss.queue_examples"]} for row in rows]
    assert verdict(QUEUE, frame(costly)).verdict == "reproduced"
    assert verdict(AT_FLOPS, frame(costly)).verdict == "no data"
    none = [{k: v for k, v in row.items() if not k.startswith("flops.")} for row in rows]
    assert verdict(AT_FLOPS, frame(none)).verdict == "no data"


def test_matches_of_too_few_steps_are_named_and_left_out():
    rows = queue_matches(sigmoid=(4.0, 4.0))
    found = verdict(QUEUE, frame(row | {"examples": 4e5} for row in rows))  # 390 steps at 1,024
    assert found.verdict == "reproduced" and found.cells == 9
    assert "64 + 960 = 1024 left out: fewer than 500 steps" in found.sentence


RISING, STOPPING = {256: 30.0, 1024: 36.0, 4096: 42.0}, {256: 30.0, 1024: 36.0, 4096: 36.2}


@pytest.mark.parametrize(
    ("negative", "masked", "positive", "expected"),
    [
        (STOPPING, (0.0, 1.0, 6.0), (0.0, 0.0, 0.0), ("reproduced", "reproduced")),
        (STOPPING, (0.0, 0.0, 0.5), (0.0, 0.0, 0.5), ("reproduced", "contradicted")),
        (STOPPING, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), ("undecided", "contradicted")),
        (RISING, (0.0, 1.0, 6.0), (0.0, 1.0, 6.0), ("reproduced", "undecided")),
    ],
)
def test_false_negatives_are_the_cause_if_the_gain_goes_on_without_them(
    negative, masked, positive, expected
):
    cells = frame(same_captions(negative, masked=masked, positive=positive))
    found = [verdict(name, cells) for name in (COST, STOP)]
    assert tuple(one.verdict for one in found) == expected
    assert found[0].estimate == pytest.approx(max(masked[2] - masked[0], positive[2]), abs=0.3)
    assert "4096: 3,906, 976, 244 steps" in found[0].sentence
    assert ("still gains" in found[1].sentence) == (negative is RISING)


def test_without_a_way_to_do_without_them_nothing_is_said():
    cells = frame(same_captions(STOPPING))
    assert {verdict(name, cells).verdict for name in (COST, STOP)} == {"no data"}
