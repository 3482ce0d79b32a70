"""Intervals: pooled over groups, of nominal coverage, and honest about too few seeds."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats.intervals import paired_differences, pooled_means


def test_pooled_variance_and_interval_match_the_textbook():
    means = pooled_means({"a": [1.0, 3.0], "b": [10.0, 10.0, 13.0], "c": [5.0]})
    # Squares within: 2 and 6, over 1 + 2 degrees of freedom; the single value adds none.
    assert means.variance == pytest.approx(8 / 3)
    assert means.dof == 3
    estimate, low, high = means.mean("b")
    half = stats.t.ppf(0.975, 3) * math.sqrt(8 / 3 / 3)
    assert (estimate, low, high) == pytest.approx((11.0, 11.0 - half, 11.0 + half))


def test_one_group_gives_the_interval_of_scipy():
    values = [3.1, 2.9, 3.7, 3.3]
    _, low, high = pooled_means({"x": values}).mean("x")
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((theirs.low, theirs.high))


def test_one_seed_everywhere_gives_no_interval():
    means = pooled_means({"a": [1.0], "b": [2.0]})
    estimate, low, high = means.contrast({"b": 1.0, "a": -1.0})
    assert estimate == 1.0
    assert math.isnan(low)
    assert math.isnan(high)
    assert math.isnan(means.critical(comparisons=3, among=2))


def test_simultaneous_intervals_are_wider_and_never_wider_than_bonferroni():
    means = pooled_means({g: [0.0, 1.0] for g in range(5)})
    single, many = means.critical(), means.critical(comparisons=10, among=5)
    assert single < many <= stats.t.ppf(1 - 0.025 / 10, means.dof)


@pytest.mark.parametrize("seeds", [2, 3])
def test_intervals_cover_the_truth_at_the_nominal_rate(seeds):
    rng = np.random.default_rng(0)
    truth = dict(zip((16, 64, 256, 1024, 4096), (4.0, 3.5, 2.0, 1.0, 0.0), strict=True))
    inside, gap_inside = 0, 0
    for _ in range(2000):
        means = pooled_means({b: v + 0.7 * rng.standard_normal(seeds) for b, v in truth.items()})
        _, low, high = means.mean(16)
        inside += low <= 4.0 <= high
        _, low, high = means.contrast({16: 1.0, 4096: -1.0})
        gap_inside += low <= 4.0 <= high
    # Binomial: 95 % of 2000 has a standard deviation of 0.5 %.
    assert 0.93 < inside / 2000 < 0.97
    assert 0.93 < gap_inside / 2000 < 0.97


def test_simultaneous_intervals_hold_all_at_once():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(1000):
        means = pooled_means({b: rng.standard_normal(2) for b in range(5)})
        critical = means.critical(comparisons=4, among=5)
        every = [means.contrast({b: 1.0, 4: -1.0}, critical=critical) for b in range(4)]
        inside += all(low <= 0 <= high for _, low, high in every)
    assert inside / 1000 > 0.935


def test_pairing_removes_what_a_seed_does_to_both_losses():
    rng = np.random.default_rng(2)
    rows = [
        {"batch_size": size, "seed": seed, "loss.kind": loss, "top1": value + order}
        for size in (16, 64)
        for seed, order in enumerate(10 * rng.standard_normal(3))
        for loss, value in (("sigmoid", 42.0), ("softmax", 40.0))
    ]
    table = pd.DataFrame(rows)
    assert np.allclose(paired_differences(table, "top1")["difference"], 2.0)
    lonely = table.drop(index=[0])  # one sigmoid cell is missing: its partner pairs with none
    assert len(paired_differences(lonely, "top1")) == 5


def test_no_pair_is_no_difference():
    table = pd.DataFrame({"batch_size": [16], "seed": [0], "loss.kind": ["sigmoid"], "q": [1.0]})
    assert paired_differences(table, "q").empty
    assert paired_differences(table, "no such column").empty
