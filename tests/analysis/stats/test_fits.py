"""Fits find the truth that records were simulated from, and their intervals hold it."""

import math

import numpy as np
import pytest

from analysis.stats import draw_means, fit_saturation
from analysis.stats.resample import item_noise

SIZES = 2.0 ** np.arange(9, 21)
TOLERANCE, TRUE = 0.5, 20_800.0
SCALE, EXPONENT = 4000.0, 0.9
GAIN = TOLERANCE * (1 + TRUE / SCALE) ** EXPONENT
POWER = 85 - GAIN * (1 + SIZES / SCALE) ** -EXPONENT


def noisy(truth, *, sd, seeds, rng):
    return {
        int(size): list(value + sd * rng.standard_normal(seeds))
        for size, value in zip(SIZES, truth, strict=True)
    }


def test_without_noise_the_saturation_batch_is_the_true_one():
    data = draw_means({int(size): [value] for size, value in zip(SIZES, POWER, strict=True)})
    found = fit_saturation(data, "power", tolerance=TOLERANCE)
    assert found.batch == pytest.approx(TRUE, rel=1e-3)
    assert found.curve(SIZES) == pytest.approx(POWER, abs=1e-4)


def test_the_other_form_finds_its_own_truth():
    c, scale = 1.5, 6000.0
    truth = 80 - c * np.log1p(scale / SIZES)
    data = draw_means({int(size): [value] for size, value in zip(SIZES, truth, strict=True)})
    found = fit_saturation(data, "logarithm", tolerance=TOLERANCE)
    assert found.batch == pytest.approx(scale / math.expm1(TOLERANCE / c), rel=1e-3)
    # Akaike's criterion tells the forms apart, the true one being better.
    assert found.aic < fit_saturation(data, "power", tolerance=TOLERANCE).aic + 2


@pytest.mark.slow
def test_the_intervals_of_the_saturation_batch_hold_it():
    """A 95 % interval holds the truth in at least 90 % of 100 simulated studies."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        data = draw_means(noisy(POWER, sd=0.1, seeds=2, rng=rng), number=100)
        found = fit_saturation(data, "power", tolerance=TOLERANCE)
        held += found.low <= TRUE <= found.high
    assert held >= 90


def test_too_much_noise_is_not_identified_rather_than_wrong():
    rng, identified = np.random.default_rng(1), 0
    for _ in range(20):
        data = draw_means(noisy(POWER, sd=0.6, seeds=2, rng=rng), number=120)
        found = fit_saturation(data, "power", tolerance=TOLERANCE)
        identified += found.identified
        assert found.identified or "not identified" in str(found)
    assert identified <= 4


def test_still_rising_at_the_largest_batch_is_beyond_the_grid():
    rng = np.random.default_rng(2)
    data = draw_means(noisy(3 * np.log2(SIZES), sd=0.1, seeds=2, rng=rng))
    found = fit_saturation(data, "power")
    assert found.batch > SIZES[-1]
    assert not found.identified


def test_the_tolerance_is_a_quarter_of_the_rise_up_to_the_best():
    falls = {512: 50.0, 1024: 54.0, 2048: 57.0, 4096: 58.0, 8192: 57.5, 16_384: 20.0}
    found = fit_saturation(draw_means({size: [value] for size, value in falls.items()}), "power")
    assert found.tolerance == pytest.approx(2.0)
    assert found.left_out == (16_384,)


def test_batches_that_fall_off_are_left_out_and_named():
    falls = POWER.copy()
    falls[-2:] -= (3.0, 9.0)
    data = draw_means({int(size): [value] for size, value in zip(SIZES, falls, strict=True)})
    found = fit_saturation(data, "power", tolerance=TOLERANCE)
    assert found.left_out == (2**19, 2**20)
    assert (found.smallest, found.largest) == (2**9, 2**18)
    assert found.batch == pytest.approx(TRUE, rel=0.01)


def test_an_interval_beyond_the_sizes_of_the_fit_is_not_identified():
    """Sizes where quality falls again are left out, so they say nothing of a plateau there."""
    peak = {int(size): 60 - 4 * math.log1p(4000 / size) for size in SIZES[:6]}  # flat from 30,041
    falls = {int(size): value for size, value in zip(SIZES[6:9], (55.0, 40.0, 20.0), strict=True)}
    rng = np.random.default_rng(5)
    seeds = {size: list(v + 0.1 * rng.standard_normal(3)) for size, v in (peak | falls).items()}
    found = fit_saturation(draw_means(seeds), "logarithm", tolerance=TOLERANCE)
    assert found.left_out == tuple(falls)
    assert found.low < 30_041 < found.high < max(falls)  # within the grid, not within the fit
    assert found.extrapolated and not found.identified
    assert f"not identified by B = 512 to {max(peak):,}" in str(found)


def test_as_many_parameters_as_batch_sizes_identify_nothing():
    seeds = noisy(POWER, sd=0.01, seeds=3, rng=np.random.default_rng(6))
    four = {int(size): seeds[int(size)] for size in SIZES[[0, 3, 6, 9]]}
    fits = {form: fit_saturation(draw_means(four), form) for form in ("power", "logarithm")}
    assert not fits["power"].identified
    assert fits["logarithm"].identified


def test_noise_measured_elsewhere_gives_one_seed_its_interval():
    one = noisy(POWER, sd=0.1, seeds=1, rng=np.random.default_rng(7))
    widths = []
    for sd in (0.05, 0.2):
        found = fit_saturation(draw_means(one, spread=(sd, 20)), "power")
        widths.append(np.log(found.high / found.low))
    assert widths[1] > 2 * widths[0]
    two = noisy(POWER, sd=0.1, seeds=2, rng=np.random.default_rng(7))
    assert draw_means(two, spread=(9.0, 20)).sd < 1.0  # its own seeds count first


def test_three_batch_sizes_are_too_few():
    assert (
        fit_saturation(draw_means({1: [1.0, 2.0], 2: [2.0, 3.0], 4: [3.0, 3.0]}), "power") is None
    )


def test_one_seed_has_an_interval_from_the_scatter_about_the_curve():
    data = draw_means(noisy(POWER, sd=0.1, seeds=1, rng=np.random.default_rng(3)))
    found = fit_saturation(data, "power", tolerance=TOLERANCE)
    assert data.drawn_RxK is None
    assert found.low <= TRUE <= found.high


def test_evaluated_examples_widen_the_draws_by_their_own_error():
    """Independent examples: the standard error of a share; shared ones: none in a difference."""
    rng = np.random.default_rng(4)
    hits = 100.0 * (rng.random((1, 2000)) < 0.4)
    noise = item_noise(rng, np.concatenate([hits, hits]), 4000)
    assert noise[:, 0].std() == pytest.approx(hits.std() / math.sqrt(2000), rel=0.05)
    assert noise[:, 0] == pytest.approx(noise[:, 1])
