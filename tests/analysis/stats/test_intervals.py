"""Intervals: of each group's own variance, of nominal coverage, and honest about too few seeds."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats.intervals import Interval, group_means, paired_differences


def test_a_contrast_has_the_interval_of_welchs_test():
    groups = {"a": [1.0, 3.0], "b": [10.0, 10.0, 13.0], "c": [5.0, 95.0]}
    gap = group_means(groups).contrast({"b": 1.0, "a": -1.0})  # c has no part in it
    theirs = stats.ttest_ind(groups["b"], groups["a"], equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (gap.estimate, gap.low, gap.high) == pytest.approx((9.0, interval.low, interval.high))
    assert (gap.dof, gap.p_value()) == pytest.approx((theirs.df, theirs.pvalue))


def test_a_group_with_one_seed_takes_the_variance_of_the_others():
    means = group_means({"a": [1.0, 3.0], "b": [10.0, 10.0, 13.0], "c": [5.0]})
    # Squares within: 2 and 6, over 1 + 2 degrees of freedom.
    assert means.variance == pytest.approx(8 / 3)
    alone = means.mean("c")
    assert alone.standard_error == pytest.approx(math.sqrt(8 / 3))
    # Satterthwaite, of the parts 2 / 3 and 6 / 3.
    assert alone.dof == pytest.approx((8 / 3) ** 2 / ((2 / 3) ** 2 / 1 + 2**2 / 2))


def test_bartletts_test_finds_unequal_variances():
    rng = np.random.default_rng(0)
    groups = {size: rng.standard_normal(3) for size in (16, 64, 256)}
    means = group_means(groups | {"none": [1.0, 1.0]})
    assert means.unequal_variances() == pytest.approx(stats.bartlett(*groups.values()).pvalue)
    wide = groups | {1024: 100 * rng.standard_normal(3)}
    assert group_means(wide).unequal_variances() < 0.001
    assert "variances differ" in group_means(wide).basis and "differ" not in means.basis
    assert math.isnan(group_means({"a": [1.0, 2.0], "b": [3.0]}).unequal_variances())


def test_one_group_gives_the_interval_of_scipy():
    values = [3.1, 2.9, 3.7, 3.3]
    ours = group_means({"x": values}).mean("x").shift(-3.0)
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
    means = group_means({"a": [1.0], "b": [2.0]})
    change = means.contrast({"b": 1.0, "a": -1.0})
    assert change.estimate == 1.0
    ends = (change.low, change.high, change.standard_error, change.p_value(), change.detectable())
    assert all(map(math.isnan, ends))


SDS = {16: 0.1, 64: 0.3, 256: 1.0, 1024: 3.0}  # 30-fold, as in recorded panels


@pytest.mark.parametrize(("seeds", "most"), [(2, 0.98), (3, 0.97)])  # two seeds: few dof, wide
def test_intervals_cover_the_truth_at_the_nominal_rate_with_unequal_variances(seeds, most):
    rng = np.random.default_rng(0)
    contrasts = ({16: 1.0}, {1024: 1.0}, {16: 1.0, 64: -1.0}, {16: 0.5, 64: 0.5, 256: -1.0})
    inside = np.zeros(len(contrasts))
    for _ in range(1000):
        means = group_means({b: sd * rng.standard_normal(seeds) for b, sd in SDS.items()})
        found = [means.contrast(weights) for weights in contrasts]
        inside += [gap.low <= 0 <= gap.high for gap in found]
    # Binomial: 95 % of 1000 has a standard deviation of 0.7 %.
    assert ((inside / 1000 > 0.93) & (inside / 1000 < most)).all(), inside


def test_simultaneous_intervals_hold_all_at_once():
    rng = np.random.default_rng(1)
    pairs, inside = list(itertools.combinations(SDS, 2)), 0
    for _ in range(500):
        means = group_means({b: sd * rng.standard_normal(3) for b, sd in SDS.items()})
        every = [means.contrast({a: 1.0, b: -1.0}, comparisons=len(pairs)) for a, b in pairs]
        inside += all(gap.low <= 0 <= gap.high for gap in every)
    assert inside / 500 > 0.94
    gap = means.contrast({16: 1.0, 64: -1.0})
    assert (every[0].high - every[0].low) > (gap.high - gap.low)
    assert every[0].standard_error == gap.standard_error


def test_pairing_removes_what_a_seed_does_to_both_losses():
    rng = np.random.default_rng(2)
    rows = [
        {"batch_size": size, "seed": seed, "loss.kind": loss, "top1": value + order}
        for size in (16, 64)
        for seed, order in enumerate(10 * rng.standard_normal(3))
        for loss, value in (("sigmoid", 42.0), ("softmax", 40.0))
    ]
    table = pd.DataFrame(rows)
    assert np.allclose(paired_differences(table, "top1")["difference"].astype(float), 2.0)
    lonely = table.drop(index=[0])  # one sigmoid cell is missing: its partner pairs with none
    assert len(paired_differences(lonely, "top1")) == 5


def test_no_pair_is_no_difference():
    table = pd.DataFrame({"batch_size": [16], "seed": [0], "loss.kind": ["sigmoid"], "q": [1.0]})
    assert paired_differences(table, "q").empty
    assert paired_differences(table, "no such column").empty
