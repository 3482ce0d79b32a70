"""Fits over batch sizes find the truth that runs were simulated from, or say that they cannot."""

import numpy as np
import pytest

from analysis.stats import (
    draw_quality,
    examples_to,
    fit_best_rate,
    fit_critical_batch,
    fit_rate_exponent,
    fit_slope,
    fit_trend,
    pareto_front,
)

SIZES = 4 ** np.arange(2, 8)  # 16 to 16k
BUDGETS = 4.0 ** np.arange(8, 12)  # 65k to 4M
TARGET = 40.0
FINE_Q = np.linspace(-40, 120, 4000)  # of quality


def fewest(quality):
    """E_min: e times the data for 12 points more."""
    return 1e5 * np.exp((np.asarray(quality) - TARGET) / 12)


def simulate(critical, *, sd=0.0, seeds=3, negatives=0.0, rng=0, number=120, sizes=SIZES):
    """Runs whose examples to a quality are E_min (1 + B / critical(E_min) + negatives / B)."""
    noise = np.random.default_rng(rng)
    low = fewest(FINE_Q)
    values = {}
    for size in sizes:
        need = low * (1 + size / critical(low) + negatives / size)
        for budget in BUDGETS:
            truth = np.interp(np.log(budget), np.log(need), FINE_Q)
            values[int(size), budget] = list(truth + sd * noise.standard_normal(seeds))
    return draw_quality(values, number=number)


def constant(batch):
    return lambda examples: batch + 0 * examples


def test_the_hyperbola_finds_the_critical_batch():
    found = fit_critical_batch(simulate(constant(1500.0)), TARGET)
    assert found.batch == pytest.approx(1500, rel=0.05)
    assert found.examples_min == pytest.approx(1e5, rel=0.05)
    steps, seen = found.curve(SIZES) / SIZES, found.curve(SIZES)
    product = (steps / found.steps_min - 1) * (seen / found.examples_min - 1)
    assert product == pytest.approx(np.ones(len(SIZES)))


@pytest.mark.parametrize(("form", "negatives"), [("hyperbola", 0.0), ("negatives", 100.0)])
def test_the_intervals_of_the_critical_batch_hold_it(form, negatives):
    held = 0
    for rng in range(30):
        grid = simulate(constant(1500.0), sd=0.4, negatives=negatives, rng=rng)
        found = fit_critical_batch(grid, TARGET, form)
        held += found.low <= 1500 <= found.high
    assert held >= 26


def test_small_batches_that_need_more_examples_are_left_out_of_the_hyperbola():
    grid = simulate(constant(1500.0), negatives=100.0)
    found = fit_critical_batch(grid, TARGET)
    assert set(found.left_out) == {16, 64} and found.sizes[0] == 256
    every = fit_critical_batch(grid, TARGET, "negatives")
    assert every.sizes == tuple(SIZES)
    assert every.batch == pytest.approx(1500, rel=0.1)
    assert every.negatives[1] == pytest.approx(1.0, rel=0.15)


def test_a_batch_beyond_the_target_at_its_smallest_budget_may_be_the_best():
    values = {
        (size, budget): [quality]
        for size, pair in {16: (30.0, 60.0), 64: (45.0, 65.0), 256: (35.0, 60.0)}.items()
        for budget, quality in zip((1e4, 1e5), pair, strict=True)
    }
    grid = draw_quality(values)
    assert set(examples_to(grid, 40.0)) == {16, 256}
    assert fit_critical_batch(grid, 40.0) is None  # 16 does not need the fewest


@pytest.mark.parametrize(("critical", "sd"), [(1e6, 0.4), (1500.0, 20.0)])
def test_what_the_runs_cannot_tell_is_not_identified(critical, sd):
    for rng in range(5):
        found = fit_critical_batch(simulate(constant(critical), sd=sd, rng=rng), TARGET)
        assert found is None or not found.identified


def test_one_seed_has_no_interval_unless_the_noise_is_known():
    grid = simulate(constant(1500.0), seeds=1)
    found = fit_critical_batch(grid, TARGET)
    assert np.isnan(found.low) and not found.identified
    known = draw_quality(
        {key: [value] for key, value in zip(grid.keys, grid.mean_N, strict=True)}, spread=(0.2, 4)
    )
    assert fit_critical_batch(known, TARGET).identified


TARGETS = np.arange(34.0, 50.0, 2.0)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_the_exponent_over_data_is_in_its_interval(power):
    held = 0
    for rng in range(20):
        grid = simulate(lambda e: 1500 * (e / 1e5) ** power, sd=0.3, rng=rng, number=100)
        found = fit_trend([fit for q in TARGETS if (fit := fit_critical_batch(grid, q))])
        held += found.data[1] <= power <= found.data[2]
    assert held >= 17


def test_few_targets_are_no_trend():
    grid = simulate(constant(1500.0), sd=0.3)
    assert fit_trend([fit_critical_batch(grid, q) for q in TARGETS[:3]]) is None


# --- learning rates -------------------------------------------------------------------------------

RATES = 0.01 * 2.0 ** np.arange(-3, 4)


def search(best, *, sd=0.0, rng=0, rates=RATES):
    """Quality of one seed: a parabola in log2 of the rate, 3 points below at twice the best."""
    noise = np.random.default_rng(rng)
    return {
        rate: [50 - 3 * np.log2(rate / best) ** 2 + sd * noise.standard_normal()] for rate in rates
    }


def test_the_best_rate_is_between_those_tried():
    found = fit_best_rate(search(0.013))
    assert found.rate == pytest.approx(0.013) and found.quality == pytest.approx(50)
    assert (found.edge, found.tried) == ("", len(RATES))
    assert np.isnan(found.low) and not found.identified


def test_the_interval_of_the_best_rate_holds_it():
    held = 0
    for rng in range(100):
        found = fit_best_rate(search(0.013, sd=0.5, rng=rng), noise=(0.5, 10), number=200)
        held += found.low <= 0.013 <= found.high
    assert held >= 90


def test_a_best_rate_at_the_edge_is_no_optimum():
    found = fit_best_rate(search(0.5), noise=(0.1, 10))
    assert (found.edge, found.rate, found.high) == ("highest", RATES[-1], np.inf)
    assert found.parabola is None and not found.identified
    assert fit_best_rate(search(1e-4)).edge == "lowest"
    assert fit_best_rate(search(0.01, rates=RATES[:2])) is None
    inside = fit_best_rate(search(0.013), noise=(0.1, 10))
    assert fit_rate_exponent({16: inside, 64: found}) is None


def test_the_exponent_of_the_rate_is_in_its_interval():
    held = 0
    for rng in range(60):
        best = {
            size: fit_best_rate(
                search(0.004 * (size / 16) ** 0.3, sd=0.5, rng=10 * rng + i),
                noise=(0.5, 10),
                number=200,
            )
            for i, size in enumerate((16, 64, 256, 1024))
        }
        found = fit_rate_exponent(best)
        assert set(found.sizes) <= {*best}
        held += found.low <= 0.3 <= found.high
    assert held >= 54


def test_rates_that_scatter_about_a_line_widen_its_interval():
    def fit(bend):
        rates = {16: 0.01, 64: 0.01 * bend, 256: 0.01, 1024: 0.01 * bend}
        best = {b: fit_best_rate(search(r), noise=(0.1, 10)) for b, r in rates.items()}
        return fit_rate_exponent(best)

    straight, bent = fit(1.0), fit(2.0)
    assert straight.spread == 1.0 and bent.spread > 5
    assert bent.high - bent.low > 5 * (straight.high - straight.low)


# --- lines and fronts -----------------------------------------------------------------------------


def test_the_interval_of_a_slope_holds_it():
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        found = fit_slope({x: 2 - 0.5 * x + rng.standard_normal(3) for x in range(5)})
        held += found.low <= -0.5 <= found.high
    assert held >= 186


def test_a_relation_that_is_no_line_has_no_sure_slope():
    rng = np.random.default_rng(0)
    found = fit_slope({x: x**2 + 0.01 * rng.standard_normal(3) for x in (-2, -1, 0, 1, 2)})
    assert found.low < 0 < found.high and found.high - found.low > 1
    assert fit_slope({1: [1.0], 2: [2.0]}) is None


def test_the_front_is_what_nothing_beats_at_its_cost():
    cost = np.array([1.0, 1.0, 2.0, 3.0, 4.0, 4.0])
    quality = np.array([[10.0, 20.0, 15.0, 30.0, 30.0, 40.0], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    front = pareto_front(cost, quality)
    assert front.tolist() == [
        [False, True, False, True, False, True],
        [True, False, False, False, False, False],
    ]
