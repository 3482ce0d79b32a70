"""The surface finds the truth that cells were simulated from, and says where it does not."""

import numpy as np
import pytest

from analysis.stats.held_out import hold_out
from analysis.stats.surface import ERROR_FORMS, BatchInterval, GridCells, fit_surface

BUDGETS = 1e6 * 4.0 ** np.arange(4)
BATCHES = 16 * 4.0 ** np.arange(6)
# In the order of `ErrorForm.names`, for B and D as ratios to 256 and to 4M.
TRUTHS = {
    "sum": (20.0, 8.0, 6.0, 0.5, 0.5, 0.6, 1.5),
    "product": (0.2, 0.1, 0.08, 0.01, 0.5, 0.6, 1.5),
    "critical": (0.2, 0.1, 0.08, 0.8, 0.6, 8.0, 0.5),
}


def simulate(form="sum", *, truth=None, noise=0.02, rng=None, budgets=BUDGETS):
    """The cells of a grid, and their true error as a function of batch size and examples."""
    theta = np.log([truth or TRUTHS[form]])

    def error(batch, examples):
        b, d = np.broadcast_arrays(np.asarray(batch) / 256, examples / 4e6)
        return ERROR_FORMS[form].error(theta, np.atleast_1d(b), np.atleast_1d(d))[0]

    batch_N, examples_N = (axis.ravel() for axis in np.meshgrid(BATCHES, budgets))
    error_N = error(batch_N, examples_N)
    if rng is not None:
        error_N = error_N + noise * rng.standard_normal(len(error_N))
    seeds_N = np.ones(len(error_N))
    cells = GridCells(
        batch_N=batch_N, examples_N=examples_N, error_N=error_N, seeds_N=seeds_N, noise=noise
    )
    return cells, error


def true_best(error, examples):
    sizes = np.geomspace(1, 1e6, 20_000)
    errors = error(sizes, examples)
    enough = sizes[(errors <= errors.min() + 0.5).argmax()]
    return sizes[errors.argmin()], enough


@pytest.mark.parametrize("form", ERROR_FORMS)
def test_the_fit_finds_the_surface_that_made_the_cells(form):
    cells, error = simulate(form, rng=np.random.default_rng(0))
    found = fit_surface(cells, form, draws=0)
    assert found.rms < 0.03
    between = np.geomspace(20, 1e4, 9)
    assert found.error(between, 7e6) == pytest.approx(error(between, 7e6), abs=0.1)
    at = found.optimum(7e6)
    assert (at.best.batch, at.enough.batch) == pytest.approx(true_best(error, 7e6), rel=0.1)


def test_the_parameters_are_those_of_the_formula():
    cells, error = simulate()
    found = fit_surface(cells, draws=0)
    assert found.theta.shape == (7,) and found.cost < 1e-6
    p = found.parameters
    assert [p[name] for name in "Egak"] == pytest.approx([20.0, 0.5, 0.6, 1.5], rel=0.01)
    b, d = 300.0, 5e6
    by_hand = p["E"] + p["K"] * d ** -p["g"] + p["A"] * b ** -p["a"] + p["C"] * (b / d) ** p["k"]
    assert by_hand == pytest.approx(error(b, d)[0], abs=1e-3)
    # Where the ridge of the sum is in closed form, the search agrees with it.
    ridge = (p["a"] * p["A"] * d ** p["k"] / (p["k"] * p["C"])) ** (1 / (p["a"] + p["k"]))
    assert found.optimum(d).best.batch == pytest.approx(ridge, rel=0.03)


def test_the_rival_forms_fit_the_sum_worse():
    cells, _ = simulate(rng=np.random.default_rng(1))
    costs = {form: fit_surface(cells, form, draws=0).cost for form in ERROR_FORMS}
    assert min(costs, key=costs.get) == "sum"


def test_the_intervals_hold_the_best_batch_and_the_smallest_that_is_as_good():
    rng, held, count = np.random.default_rng(2), np.zeros(2), 10
    _, error = simulate()
    best, enough = true_best(error, 7e6)
    for _ in range(count):
        cells, _ = simulate(noise=0.2, rng=rng, budgets=BUDGETS[:3])
        at = fit_surface(cells, draws=25).optimum(7e6)
        held += at.best.low <= best <= at.best.high, at.enough.low <= enough <= at.enough.high
        assert at.best.identified == (at.best.low >= 16 and at.best.high <= BATCHES[-1])
    assert (held >= 8).all()  # of 10 intervals of 95 % fewer hold one time in 90


def test_a_grid_without_an_optimum_inside_is_not_identified():
    """Error falls to the largest batch at every budget: no cost of few steps was seen."""
    cells, _ = simulate(
        truth=(20.0, 8.0, 6.0, 1e-9, 0.5, 0.6, 1.5), noise=0.1, rng=np.random.default_rng(3)
    )
    at = fit_surface(cells, draws=20).optimum(4e6)
    assert at.best.high > BATCHES[-1]
    assert not at.best.identified
    assert at.enough.low > BATCHES[0]


def test_examples_beyond_the_budgets_are_not_identified():
    cells, _ = simulate(rng=np.random.default_rng(4))
    found = fit_surface(cells, draws=10)
    assert [found.optimum(d).enough.identified for d in (1e6, 8e6, 64e6, 65e6, 9e5)] == [
        *(True, True, True),
        *(False, False),
    ]


def test_a_budget_is_judged_by_its_own_batch_sizes():
    """The largest batch of a longer budget says nothing of a shorter one."""
    cells, _ = simulate(rng=np.random.default_rng(5))
    at = fit_surface(cells, draws=10).optimum(1e6).best
    short = cells.take((cells.examples_N > 1e6) | (cells.batch_N < at.batch))
    again = fit_surface(short, draws=10).optimum(1e6).best
    assert at.identified and not again.identified


def test_a_held_out_budget_is_predicted_where_the_form_is_true():
    cells, error = simulate(rng=np.random.default_rng(6))
    found = hold_out(cells)
    assert found.examples == 64e6 and not (found.surface.cells.examples_N == 64e6).any()
    assert found.rms < found.worst < 0.3
    assert found.enough == pytest.approx(true_best(error, 64e6)[1], rel=0.2)


def test_one_run_that_fails_moves_the_ridge_little():
    cells, _ = simulate(noise=0.2, rng=np.random.default_rng(7))
    at = fit_surface(cells, draws=0).optimum(4e6).enough.batch
    worst = int((cells.batch_N / cells.examples_N).argmax())
    cells.error_N[worst] += 4.0
    assert fit_surface(cells, draws=0).optimum(4e6).enough.batch == pytest.approx(at, rel=0.1)


def test_too_few_cells_and_budgets_are_not_fitted():
    cells, _ = simulate()
    assert fit_surface(cells.take(np.arange(7)), draws=0) is None
    assert hold_out(cells.take(cells.examples_N <= 4e6)) is None
    assert hold_out(cells.take(cells.batch_N <= 1024)) is None  # 12 cells at three budgets


def test_without_draws_there_is_no_interval():
    at = fit_surface(simulate()[0], draws=0).optimum(4e6).best
    assert isinstance(at, BatchInterval)
    assert np.isnan([at.low, at.high]).all() and not at.identified
