"""How p-values of conditions and of claims make a verdict."""

import math

import pytest
from scipy import stats

from analysis.claims.claim import (
    Verdict,
    adjust,
    all_above,
    any_above,
    conclude,
    holm,
    weakest,
    withhold,
)
from analysis.stats.intervals import Interval, group_means

DOF = 8
MEANS = group_means({"a": [0.0, 1.0]})


def interval(t, *, error=1.0):
    """An estimate `t` standard errors above zero."""
    half = error * stats.t.ppf(0.975, DOF)
    return Interval(t * error, t * error - half, t * error + half, error, DOF)


def p_above(t):
    return stats.t.sf(t, DOF)


def test_all_conditions_hold_without_an_adjustment_and_one_that_fails_survives_holm():
    for_, against = all_above([interval(3.0), interval(2.5), interval(-1.0)])
    assert (for_, against) == pytest.approx((p_above(-1.0), 3 * p_above(1.0)))
    # The 95 % interval of one of three conditions is below zero: alone contradicted, here not.
    assert all_above([interval(-2.5)]).verdict == "contradicted"
    assert all_above([interval(5.0), interval(5.0), interval(-2.5)]).verdict == "undecided"
    assert all_above([interval(2.5)] * 3).verdict == "reproduced"
    for_, against = any_above([interval(3.0), interval(-1.0)])
    assert (for_, against) == pytest.approx((2 * p_above(3.0), p_above(-3.0)))
    nested = any_above([all_above([interval(3.0), interval(4.0)]), interval(0.0)])
    assert nested.above == pytest.approx(2 * p_above(3.0))


def test_holm_is_that_of_the_textbook():
    p = [2 * p_above(t) for t in (4.0, 2.0, 3.0)]
    expected = [3 * p[0], p[1], max(3 * p[0], 2 * p[2])]
    assert holm([interval(4.0), interval(-2.0), interval(3.0)]) == pytest.approx(expected)


def test_the_weakest_condition_is_so_in_standard_errors():
    conditions = {"small": interval(4.0, error=0.01), "large": interval(2.0, error=10.0)}
    assert weakest(conditions) == "large"


def verdict_at(t):
    return conclude(interval(t), MEANS, "It is")


def test_the_adjusted_p_value_decides():
    alone, *rest = adjust([verdict_at(2.5)])
    assert (alone.verdict, alone.decide, rest) == ("reproduced", "", [])
    assert alone.p == alone.adjusted_p == pytest.approx(2 * p_above(2.5))
    among = adjust([verdict_at(2.5), verdict_at(0.1), verdict_at(-0.2), verdict_at(0.3)])
    assert {one.verdict for one in among} == {"undecided"}
    assert among[0].adjusted_p == pytest.approx(4 * among[0].p)
    assert "effect of 3.2 points with 80 % power" in among[0].decide
    strong = adjust([verdict_at(2.5), verdict_at(9.0), verdict_at(-9.0), verdict_at(0.3)])
    assert [one.verdict for one in strong[:3]] == ["reproduced", "reproduced", "contradicted"]


def test_a_withheld_claim_helps_no_other_and_stays_open():
    withheld = withhold(verdict_at(9.0), because="Why.", decide="what")
    missing = Verdict(verdict="no data", sentence="None.")
    one, other, third = adjust([withheld, verdict_at(2.5), missing])
    assert (one.verdict, one.adjusted_p, one.decide) == ("undecided", 1.0, "what")
    assert other.adjusted_p == pytest.approx(2 * other.p)  # a family of two
    assert math.isnan(third.adjusted_p)


def test_the_detectable_effect_is_found_four_times_in_five():
    effect = verdict_at(0.0).detectable
    critical = stats.t.ppf(0.975, DOF)
    assert stats.nct.sf(critical, DOF, effect) == pytest.approx(0.8, abs=1e-3)
