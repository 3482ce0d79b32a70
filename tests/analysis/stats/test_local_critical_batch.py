"""The local critical batch size, from losses of branches that are written down."""

import math

import pytest

from analysis.stats.local_critical_batch import local_critical_batch, smooth


@pytest.mark.parametrize(
    ("losses", "batch"),
    [
        # Half of the tolerance is left at 256, and the rise to 1,024 is a tenth of a nat.
        ({64: 1.5, 256: 1.505, 1024: 1.605, 4096: 2.0}, 256 * 4**0.05),
        # A better loss with more negatives is what the larger sizes are compared with.
        ({64: 1.5, 256: 1.3, 1024: 1.4, 4096: 1.6}, 256 * 4**0.1),
        # Above the tolerance and below it again: the last size counts.
        ({64: 1.5, 256: 1.55, 1024: 1.5, 4096: 1.7}, 1024 * 4**0.05),
        ({64: 1.5, 256: 1.6}, 64 * 4**0.1),
    ],
)
def test_it_is_where_the_loss_leaves_that_of_every_smaller_size(losses, batch):
    assert local_critical_batch(losses) == (pytest.approx(batch), True)
    shuffled = dict(reversed(losses.items()))
    assert local_critical_batch(shuffled) == local_critical_batch(losses)


def test_it_is_not_known_where_no_size_is_too_large():
    assert local_critical_batch({64: 1.5, 256: 1.4, 1024: 1.409}) == (1024, False)
    assert local_critical_batch({64: 1.5, 256: 1.52}, tolerance=0.02) == (256, False)


def test_the_tolerance_moves_it_up_to_the_size_that_is_worse_by_it():
    losses = {64: 1.5, 256: 1.5, 1024: 1.6}
    batches = [local_critical_batch(losses, tolerance=t)[0] for t in (0.0, 0.05, 0.099)]
    assert batches == sorted(batches) and batches[0] == 256
    assert batches[1] == pytest.approx(math.sqrt(256 * 1024))


def test_smoothing_halves_the_weight_with_each_older_value():
    assert smooth([8.0]) == 8.0
    assert smooth([8.0, 4.0, 2.0]) == 4.0
    assert smooth([5.0] * 7) == 5.0
    assert smooth([8.0, 4.0], weight=1.0) == 4.0
