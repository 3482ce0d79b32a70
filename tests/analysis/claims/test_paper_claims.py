"""The claims on the paper's own numbers, and its text against them."""

import json
import math

import pytest
from scipy import stats

from analysis.claims import judge_paper
from analysis.paper import as_cells, check_text, format_checks
from analysis.stats.intervals import Spread, group_means


@pytest.fixture(scope="module")
def found():
    return {one.name: one for one in judge_paper()}


@pytest.fixture(scope="module")
def checks():
    return {check.name: check for check in check_text()}


def test_what_the_paper_prints_bears_its_claims_out(found):
    judged = {name: one.verdict for name, one in found.items() if one.verdict != "no data"}
    assert {name: kind for name, kind in judged.items() if kind != "reproduced"} == {
        # +0.1 +- 0.3 at 128k and 256k, where level means within a quarter of 1.0.
        "losses level at large batch": "undecided",
        # 84.7 from 64k to 1M at 18B examples: level. At 450M and 900M examples the largest hurts.
        "too large a batch hurts": "contradicted",
        "from scratch: saturates": "undecided",  # 73.4 at 32k, 71.6 at 307k: a fall, no plateau
    }
    assert len(judged) == 17


def test_estimates_are_those_of_the_tables(found):
    assert found["sigmoid ahead at small batch"].estimate == pytest.approx(1.0)  # 2k, 4k at 18B
    assert found["from scratch: too large hurts"].estimate == pytest.approx(73.4 - 71.6)
    assert found["languages gain nothing past 32k"].estimate == pytest.approx(34.4 - 34.9)
    assert found["languages: too large hurts"].estimate == pytest.approx(34.9 - 32.7)
    assert found["languages: English zero-shot stays"].estimate == pytest.approx(73.1 - 73.2)
    most = found["languages: some lose"]
    assert "falls most in ja" in most.sentence and "18 of 36 languages" in most.sentence
    assert found["b = -10, t' = log 10 is best"].estimate == pytest.approx(63.0 - 62.0)
    long = found["large batch needs long training"]
    assert "minus B = 8192 is -8.00 [-8.45, -7.55] points after 450,000,000" in long.sentence
    assert "+1.10 [0.65, 1.55] after 18,000,000,000" in long.sentence


def test_intervals_are_from_the_spread_of_repeated_runs(found):
    """Table 7: 0.1, 0.2 and 0.1 points of five runs each; the gap is a mean of two differences."""
    rounding = 0.05**2 / 3
    sd = math.sqrt((0.1**2 + 0.2**2 + 0.1**2) / 3 + 2 * rounding)
    spread = as_cells.run_spread()
    assert (spread.sd, spread.dof) == (pytest.approx(sd), 12)
    gap = found["from scratch: sigmoid ahead"]
    half = stats.t.ppf(0.975, 12) * sd
    assert (gap.low, gap.high) == pytest.approx((gap.estimate - half, gap.estimate + half))
    assert gap.high - gap.low == pytest.approx(0.64, abs=0.01)
    assert "one run each" in gap.sentence


def test_a_spread_from_elsewhere_counts_where_no_group_has_two_seeds():
    spread = Spread(0.1, 12)
    printed = group_means({1: [1.0], 2: [3.0]}, spread=spread).contrast({2: 1.0, 1: -1.0})
    assert (printed.standard_error, printed.dof) == pytest.approx((0.1 * math.sqrt(2), 12))
    difference = group_means({1: [2.0]}, spread=spread.of_difference()).mean(1)
    assert difference.high == pytest.approx(printed.high)
    seeds = {1: [1.0, 1.2], 2: [3.0, 3.1]}
    assert group_means(seeds, spread=spread).mean(1) == group_means(seeds).mean(1)


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
