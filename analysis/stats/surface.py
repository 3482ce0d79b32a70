"""A surface of error over examples seen D and batch size B, and the batch to choose on it.

At a fixed number of examples a larger batch has more negatives and fewer steps, so some batch size
is best; how it moves with the examples is what the surface is for. Three forms, each of seven
parameters, show how far the answer depends on the form (errors and accuracies in percent):

- sum: `error = E + K D^-g + A B^-a + C (B/D)^k`, for data, negatives and steps
- product: `accuracy = (100 - E) exp(-(K D^-g + A B^-a + C (B/D)^k))`, which stays above zero
- critical: `accuracy = (100 - E) exp(-(K (D / (1 + B / (W D^m)))^-g + A B^-a))`: examples beyond a
  critical batch are wasted (McCandlish 2018), and that batch grows with D (Zhang 2025)

Fits are least squares in the logarithms of the parameters, from the best of many shapes. Every form
misses some cells by several times the noise between runs (on the paper's Table 8 by up to 1.2
points, noise 0.2), so residuals count linearly beyond the noise (soft L1).

Intervals are from a parametric bootstrap: normal errors as large as the scatter about the surface,
which holds the noise between runs and what the form cannot follow; on Table 8 the noise alone is
less than half of it. Each draw takes a variance from its distribution given the residuals, so few
cells make wide intervals, which resampling a dozen residuals would not. That the form is wrong in
the same direction in neighbouring cells is not covered: see the rival forms and `held_out`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from analysis.stats.resample import interval, seed_noise

TOLERANCE = 0.5  # points that do not count
PARAMETERS = 7
SHAPES, STARTS = 300, 5  # candidates, and how many of them the fit starts from
DRAWS = 400
STEP = 1e-5  # of a logarithm, for derivatives
BEYOND = 64  # how far outside the batch sizes an optimum is looked for, as a factor
CANDIDATES = 800  # batch sizes to choose from, 2 % apart


@dataclass(frozen=True, kw_only=True)
class ErrorForm:
    """A family of surfaces: a weighted sum of terms is the error, or -log of the accuracy.

    Attributes:
      terms: from the exponents (and other parameters of shape), B and D, the terms with a weight
        each, beside the constant of E.
      names: of the parameters, those of E and of the weights first.
      low, high: bounds of the parameters of shape.
      log: whether the sum is -log of the accuracy.
    """

    terms: Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray], list[np.ndarray]]
    names: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    log: bool
    formula: str

    @property
    def weights(self) -> int:
        """How many parameters are weights."""
        return PARAMETERS - len(self.low)

    def sum_of(self, error: np.ndarray) -> np.ndarray:
        """The sum of terms that gives an error in percent."""
        return -np.log(np.maximum(1 - error / 100, 1e-4)) if self.log else error

    def error_of(self, total: np.ndarray) -> np.ndarray:
        """The error in percent that a sum of terms gives."""
        return 100 * -np.expm1(-total) if self.log else total

    def columns(self, shape_RxS: np.ndarray, b_N: np.ndarray, d_N: np.ndarray) -> np.ndarray:
        """The constant and the terms, `R x N x W`."""
        with np.errstate(over="ignore", under="ignore"):  # far outside of the grid
            terms = self.terms(list(shape_RxS.T[:, :, None]), b_N, d_N)
        return np.stack([np.ones_like(terms[0]), *terms], axis=2)

    def error(self, theta_RxP: np.ndarray, b_N: np.ndarray, d_N: np.ndarray) -> np.ndarray:
        """Percent, `R x N`, from logarithms of the parameters."""
        values_RxP = np.exp(theta_RxP)
        columns_RxNxW = self.columns(values_RxP[:, self.weights :], b_N, d_N)
        with np.errstate(over="ignore"):
            return self.error_of(
                np.einsum("rnw,rw->rn", columns_RxNxW, values_RxP[:, : self.weights])
            )


def _three_terms(shape: Sequence[np.ndarray], b: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    g, a, k = shape
    return list(np.broadcast_arrays(d**-g, b**-a, (b / d) ** k))


def _critical_terms(shape: Sequence[np.ndarray], b: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    g, a, w, m = shape
    useful = d / (1 + b / (w * d**m))
    return list(np.broadcast_arrays(useful**-g, b**-a))


THREE: dict[str, Any] = {"terms": _three_terms, "low": (0.02, 0.02, 0.05), "high": (4.0, 4.0, 5.0)}
ERROR_FORMS: Mapping[str, ErrorForm] = {
    "sum": ErrorForm(
        **THREE, names="EKACgak", log=False, formula="error = E + K D^-g + A B^-a + C (B/D)^k"
    ),
    "product": ErrorForm(
        **THREE,
        names="EKACgak",
        log=True,
        formula="accuracy = (100 - E) exp(-K D^-g - A B^-a - C (B/D)^k)",
    ),
    "critical": ErrorForm(
        terms=_critical_terms,
        names="EKAgaWm",
        low=(0.02, 0.02, 1e-2, 0.02),
        high=(4.0, 4.0, 1e5, 2.0),
        log=True,
        formula="accuracy = (100 - E) exp(-K (D / (1 + B / (W D^m)))^-g - A B^-a)",
    ),
}


@dataclass(frozen=True, kw_only=True)
class GridCells:
    """Mean error of the cells of a grid, one entry per batch size and examples seen.

    Attributes:
      batch_N, examples_N: of each cell.
      error_N: mean over seeds, percent.
      seeds_N: how many seeds.
      noise: standard deviation between seeds, in points.
    """

    batch_N: np.ndarray
    examples_N: np.ndarray
    error_N: np.ndarray
    seeds_N: np.ndarray
    noise: float

    def __len__(self) -> int:
        return len(self.batch_N)

    def take(self, chosen: np.ndarray) -> GridCells:
        """Those of an index or a mask."""
        parts = (self.batch_N, self.examples_N, self.error_N, self.seeds_N)
        batch_N, examples_N, error_N, seeds_N = (part[chosen] for part in parts)
        return GridCells(
            batch_N=batch_N,
            examples_N=examples_N,
            error_N=error_N,
            seeds_N=seeds_N,
            noise=self.noise,
        )

    def batches_at(self, examples: float) -> tuple[float, float]:
        """The smallest and the largest batch size at the budget nearest to this one."""
        budgets = np.unique(self.examples_N)
        nearest = budgets[np.abs(np.log(budgets / examples)).argmin()]
        sizes = self.batch_N[self.examples_N == nearest]
        return float(sizes.min()), float(sizes.max())


@dataclass(frozen=True, kw_only=True)
class BatchInterval:
    """A batch size and its 95 % bootstrap interval, infinite where there is no such size.

    Attributes:
      identified: whether the interval is within the batch sizes of the nearest budget and the
        examples within the budgets. Else the surface extrapolates.
    """

    batch: float
    low: float
    high: float
    identified: bool


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """What a surface says for a number of examples.

    Attributes:
      best: the batch size with the lowest error, the ridge B*(D).
      enough: the smallest batch size within the tolerance of the lowest error.
      error: the lowest error, percent.
    """

    examples: float
    best: BatchInterval
    enough: BatchInterval
    error: float


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A fit of one form to the cells.

    Attributes:
      theta: logarithms of the parameters, for B and D as ratios to `batch` and `examples`.
      drawn_RxP: the bootstrap's draws of them.
      cost: of the robust fit; all forms have as many parameters, so the lowest fits best.
      rms, worst: residuals in points.
    """

    form: str
    cells: GridCells
    batch: float
    examples: float
    theta: np.ndarray
    drawn_RxP: np.ndarray
    cost: float
    rms: float
    worst: float

    @property
    def parameters(self) -> dict[str, float]:
        """By the names of the formula, for B and D as they are."""
        family = ERROR_FORMS[self.form]
        values = dict(zip(family.names, np.exp(self.theta).tolist(), strict=True))
        values["E"] = float(family.error_of(np.array(values["E"])))
        values["K"] *= self.examples ** values["g"]
        values["A"] *= self.batch ** values["a"]
        if "C" in values:
            values["C"] *= (self.examples / self.batch) ** values["k"]
        if "W" in values:
            values["W"] *= self.batch / self.examples ** values["m"]
        return values

    def error(self, batch: np.ndarray, examples: np.ndarray | float) -> np.ndarray:
        """Percent, at these batch sizes and examples seen."""
        return self._errors(self.theta[None], np.asarray(batch, float), examples)[0]

    def error_interval(
        self, batch: np.ndarray, examples: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the 95 % bootstrap interval of `error`."""
        drawn_RxN = self._errors(self.drawn_RxP, np.asarray(batch, float), examples)
        ends_Nx2 = np.array([interval(drawn_R) for drawn_R in drawn_RxN.T])
        return ends_Nx2[:, 0], ends_Nx2[:, 1]

    def optimum(self, examples: float, *, tolerance: float = TOLERANCE) -> Optimum:
        """The best batch size for this many examples, and the smallest that is as good."""
        smallest, largest = self.cells.batch_N.min() / BEYOND, self.cells.batch_N.max() * BEYOND
        sizes_G = np.geomspace(smallest, min(largest, examples), CANDIDATES)
        theta_RxP = np.concatenate([self.theta[None], self.drawn_RxP])
        error_RxG = self._errors(theta_RxP, sizes_G, examples)
        best_R = error_RxG.argmin(axis=1)
        lowest_Rx1 = error_RxG.min(axis=1, keepdims=True)
        enough_R = (error_RxG <= lowest_Rx1 + tolerance).argmax(axis=1)
        return Optimum(
            examples=examples,
            best=self._interval(sizes_G, best_R, examples),
            enough=self._interval(sizes_G, enough_R, examples),
            error=float(lowest_Rx1[0, 0]),
        )

    def _errors(
        self, theta_RxP: np.ndarray, batch_N: np.ndarray, examples: np.ndarray | float
    ) -> np.ndarray:
        b_N, d_N = batch_N / self.batch, np.asarray(examples, float) / self.examples
        return ERROR_FORMS[self.form].error(theta_RxP, b_N, d_N)

    def _interval(self, sizes_G: np.ndarray, index_R: np.ndarray, examples: float) -> BatchInterval:
        """Of the first index, with the others as draws; the ends of the search are no optimum."""
        values = np.array([0.0, *sizes_G[1:-1], np.inf])
        low, high = interval(values[index_R[1:]]) if len(index_R) > 1 else (np.nan, np.nan)
        smallest, largest = self.cells.batches_at(examples)
        inside = self.cells.examples_N.min() <= examples <= self.cells.examples_N.max()
        return BatchInterval(
            batch=float(values[index_R[0]]),
            low=low,
            high=high,
            identified=bool(inside and smallest <= low and high <= largest),
        )


def fit_surface(cells: GridCells, form: str = "sum", *, draws: int = DRAWS) -> Surface | None:
    """Fits one of `ERROR_FORMS`, with bootstrap draws; None with as few cells as parameters."""
    if len(cells) <= PARAMETERS:
        return None
    family = ERROR_FORMS[form]
    low_P = np.log([*np.full(family.weights, 1e-6), *family.low])
    high_P = np.log([*np.full(family.weights, 1e3), *family.high])
    batch, examples = (float(np.exp(np.log(x).mean())) for x in (cells.batch_N, cells.examples_N))
    b_N, d_N = cells.batch_N / batch, cells.examples_N / examples
    weight_N = np.sqrt(cells.seeds_N) / cells.noise

    def jacobian_NxP(theta: np.ndarray) -> np.ndarray:
        """Central differences, in one call instead of one for each parameter."""
        nudges = STEP * np.eye(PARAMETERS)
        up_PxN = family.error(theta + nudges, b_N, d_N)
        down_PxN = family.error(theta - nudges, b_N, d_N)
        return weight_N[:, None] * (up_PxN - down_PxN).T / (2 * STEP)

    def solve(error_N: np.ndarray, start_P: np.ndarray, most: int) -> tuple[float, np.ndarray]:
        fit = least_squares(
            lambda theta: weight_N * (family.error(theta[None], b_N, d_N)[0] - error_N),
            np.clip(start_P, low_P + 1e-3, high_P - 1e-3),
            jac=jacobian_NxP,
            bounds=(low_P, high_P),
            loss="soft_l1",
            max_nfev=most,
        )
        return float(fit.cost), fit.x

    starts = _starts(family, cells, b_N, d_N)
    cost, theta = min(
        (solve(cells.error_N, start, 300) for start in starts), key=lambda fit: fit[0]
    )
    fitted_N = family.error(theta[None], b_N, d_N)[0]
    residual_N, dof = cells.error_N - fitted_N, len(cells) - PARAMETERS
    scatter = float(np.sqrt((cells.seeds_N * residual_N**2).sum() / dof))
    rng = np.random.default_rng(0)
    noise_RxN = seed_noise(rng, max(scatter, cells.noise), dof, cells.seeds_N, draws)
    drawn = [solve(fitted_N + noise_N, theta, 100)[1] for noise_N in noise_RxN]
    return Surface(
        form=form,
        cells=cells,
        batch=batch,
        examples=examples,
        theta=theta,
        drawn_RxP=np.reshape(drawn, (draws, PARAMETERS)),
        cost=cost,
        rms=float(np.sqrt((residual_N**2).mean())),
        worst=float(np.abs(residual_N).max()),
    )


def _starts(
    family: ErrorForm, cells: GridCells, b_N: np.ndarray, d_N: np.ndarray
) -> list[np.ndarray]:
    """The best of many shapes, with weights by non-negative least squares."""
    rng = np.random.default_rng(0)
    low_S, high_S = np.log(family.low), np.log(family.high)
    shape_RxS = np.exp(rng.uniform(low_S, high_S, (SHAPES, len(family.low))))
    total_N = family.sum_of(cells.error_N)
    # A small change of the error is this much of the sum.
    slope_N = np.maximum(100 - cells.error_N, 1e-2) if family.log else np.ones(len(cells))
    weight_N = np.sqrt(cells.seeds_N) * slope_N
    fits = []
    for shape_S, column_NxW in zip(shape_RxS, family.columns(shape_RxS, b_N, d_N), strict=True):
        weights, miss = nnls(weight_N[:, None] * column_NxW, weight_N * total_N)
        weights = np.maximum(weights, 1e-3 * weights.max())
        fits.append((miss, np.log([*weights, *shape_S])))
    return [theta for _, theta in sorted(fits, key=lambda fit: fit[0])[:STARTS]]
