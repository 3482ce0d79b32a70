"""The claims on the paper's own numbers, and its text against them."""

import json
import math

import pytest

from analysis.claims import judge_paper
from analysis.paper import check_text, format_checks
from analysis.stats.intervals import group_means


@pytest.fixture(scope="module")
def found():
    return {one.name: one for one in judge_paper()}


@pytest.fixture(scope="module")
def checks():
    return {check.name: check for check in check_text()}


def test_what_the_paper_prints_bears_its_claims_out(found):
    judged = {name: one.verdict for name, one in found.items() if one.verdict != "no data"}
    assert {name: kind for name, kind in judged.items() if kind != "reproduced"} == {
        # 84.7 from 64k to 1M at 18B examples: level. At 450M and 900M examples the largest hurts.
        "too large a batch hurts": "contradicted",
        "from scratch: saturates": "undecided",  # 73.4 at 32k, 71.6 at 307k: a fall, no plateau
    }
    assert len(judged) == 13


def test_estimates_are_those_of_the_tables(found):
    assert found["sigmoid ahead at small batch"].estimate == pytest.approx(1.0)  # 2k, 4k at 18B
    assert found["from scratch: too large hurts"].estimate == pytest.approx(73.4 - 71.6)
    assert found["languages gain nothing past 32k"].estimate == pytest.approx(34.4 - 34.9)
    assert found["b = -10, t' = log 10 is best"].estimate == pytest.approx(63.0 - 62.0)
    long = found["large batch needs long training"]
    assert "minus B = 8192 is -8.00 [-8.10, -7.90] points after 450,000,000" in long.sentence
    assert "+1.10 [1.00, 1.20] after 18,000,000,000" in long.sentence


def test_bounds_are_those_of_rounding(found):
    gap = found["from scratch: sigmoid ahead"]  # the mean of two differences of two numbers
    assert (gap.low, gap.high) == pytest.approx((gap.estimate - 0.1, gap.estimate + 0.1))
    assert "bounds of rounding" in gap.sentence


def test_rounding_adds_to_the_noise_of_seeds():
    printed = group_means({1: [1.0], 2: [3.0]}, rounding=0.05)
    change = printed.contrast({2: 1.0, 1: -1.0})
    assert (change.estimate, change.low, change.high) == pytest.approx((2.0, 1.9, 2.1))
    assert math.isnan(change.standard_error) and math.isnan(change.p_value())
    seeds = {1: [1.0, 1.2], 2: [3.0, 3.1]}
    exact, rounded = (group_means(seeds, rounding=r).mean(1) for r in (0.0, 0.05))
    assert rounded.high - exact.high == pytest.approx(0.05)


def test_the_text_disagrees_with_the_numbers_where_it_does(checks):
    disagree = {name for name, check in checks.items() if not check.agrees}
    assert disagree == {
        "the best batch size of SigLiT",
        "which loss leads at large batches",
        "SigLiT on four chips in a day",
        "the default recipe at 3B examples",
        "how long the runs with masked negatives are",
        "the sign of b in the formula of the loss",
    }


def test_the_numbers_of_the_disagreements(checks):
    assert (
        "64k, 128k, 256k, 1024k all print 84.7" in checks["the best batch size of SigLiT"].numbers
    )
    lead = checks["which loss leads at large batches"].numbers
    assert "SigLIP 9B at 98k by 0.2" in lead and "SigLIP 9B at 307k by 1.0" in lead
    assert "SigLiT 900M at 128k by 0.1" in lead
    defaults = checks["the default recipe at 3B examples"].numbers
    assert "8k: Table 6 70.1, Table 5 68.6" in defaults and "70.1 +- 0.2" in defaults
    assert "163,831" in checks["the sign of b in the formula of the loss"].numbers


def test_checks_fit_a_terminal_and_json(checks):
    text = format_checks(checks.values())
    assert max(map(len, text.splitlines())) <= 110
    json.dumps([vars(check) for check in checks.values()])
