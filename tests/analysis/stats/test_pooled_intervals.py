"""Intervals: pooled over groups, of nominal coverage, and honest about too few seeds."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats.intervals import Interval, paired_differences, pooled_means


def test_pooled_variance_and_interval_match_the_textbook():
    means = pooled_means({"a": [1.0, 3.0], "b": [10.0, 10.0, 13.0], "c": [5.0]})
    # Squares within: 2 and 6, over 1 + 2 degrees of freedom; the single value adds none.
    assert means.variance == pytest.approx(8 / 3)
    assert means.dof == 3
    b = means.mean("b")
    error = math.sqrt(8 / 3 / 3)
    half = stats.t.ppf(0.975, 3) * error
    assert (b.estimate, b.low, b.high) == pytest.approx((11.0, 11.0 - half, 11.0 + half))
    assert (b.standard_error, b.dof) == pytest.approx((error, 3))


def test_one_group_gives_the_interval_of_scipy():
    values = [3.1, 2.9, 3.7, 3.3]
    ours = pooled_means({"x": values}).mean("x").shift(-3.0)
    theirs = stats.ttest_1samp(values, 3.0).confidence_interval(0.95)
    assert (ours.low + 3, ours.high + 3) == pytest.approx((theirs.low, theirs.high))
    for alternative in ("two-sided", "greater", "less"):
        test = stats.ttest_1samp(values, 3.0, alternative=alternative)
        assert ours.p_value(alternative) == pytest.approx(test.pvalue)
    assert (-ours).p_value("less") == pytest.approx(ours.p_value("greater"))


@pytest.mark.parametrize(("estimate", "p"), [(0.0, 1.0), (0.5, 0.0)])
def test_without_spread_any_difference_is_certain(estimate, p):
    assert Interval(estimate, estimate, estimate, 0.0, 4).p_value() == p


@pytest.mark.parametrize(("dof", "level"), [(2, 0.95), (12.5, 0.95), (30, 0.99)])
def test_the_detectable_effect_is_detected_with_its_power(dof, level):
    effect = Interval(0.0, -1.0, 1.0, 0.5, dof).detectable(level=level)
    rng = np.random.default_rng(0)
    t = (effect + 0.5 * rng.standard_normal(20_000)) / (
        0.5 * np.sqrt(rng.chisquare(dof, 20_000) / dof)
    )
    found = np.abs(t) > stats.t.ppf((1 + level) / 2, dof)
    assert found.mean() == pytest.approx(0.8, abs=0.012)  # four standard deviations


def test_one_seed_everywhere_gives_no_interval():
    means = pooled_means({"a": [1.0], "b": [2.0]})
    change = means.contrast({"b": 1.0, "a": -1.0})
    assert change.estimate == 1.0
    ends = (change.low, change.high, change.standard_error, change.p_value(), change.detectable())
    assert all(map(math.isnan, ends))
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
        mean, gap = means.mean(16), means.contrast({16: 1.0, 4096: -1.0})
        inside += mean.low <= 4.0 <= mean.high
        gap_inside += gap.low <= 4.0 <= gap.high
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
        inside += all(gap.low <= 0 <= gap.high for gap in every)
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
