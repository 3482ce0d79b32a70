"""The critical batch size: where more examples per step stop saving steps (McCandlish 2018).

The steps S and examples E = S * B to reach a target are on a hyperbola,
`(S / S_min - 1) * (E / E_min - 1) = 1`, or `E = E_min + S_min * B`, with B_crit = E_min / S_min.
Steps fall short of linear scaling by 20 % (Zhang 2025) where E = 1.2 * E_min, at B = B_crit / 5.

Examples are read off runs that ended: for each batch size, final quality rises with the budget, and
the budget that would end at the target lies between two measured ones (a monotone cubic in the
logarithm of the budget). A point in the middle of a longer run is no such budget, since its
learning rate has not decayed.

With a contrastive loss a small batch has few negatives and needs more examples than a larger one,
which the hyperbola does not allow. So two forms are fitted, to show how far the answer depends on
the form:

- hyperbola: `E = E_min + S_min B`, from the batch size that needs the fewest examples on
- negatives: `E = E_min + S_min B + C B^-a`, to all batch sizes

Two forms say how B_crit moves with the target: with the quality reached, `B_crit ~ error^-k`
(McCandlish 2018; Kaplan 2020), or with the data it takes, `B_crit ~ E_min^m` (Zhang 2025, m about
0.47 for language models).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from analysis.stats.resample import DRAWS, draw_means, interval

CRITICAL_FORMS: Mapping[str, str] = {
    "hyperbola": "E = E_min + S_min B",
    "negatives": "E = E_min + S_min B + C B^-a",
}
PARAMETERS = {"hyperbola": 2, "negatives": 4}
EXPONENTS = np.geomspace(0.5, 3.0, 24)  # candidates for a
FEWEST_SIZES = 1 + PARAMETERS["hyperbola"]
FEWEST_TARGETS = 4  # of a trend
KNOTS = 200  # of a curve over budgets
QUARTER = 4  # a target below this part of the best quality says little of the batch size
STEPS = (0.1, 0.2, 0.5, 1.0, 2.5, 5.0)  # between targets, in points
TARGETS = 20  # round numbers over the range of quality


@dataclass(frozen=True, kw_only=True, eq=False)
class QualityGrid:
    """Final quality of one loss by batch size and budget, in percent, with draws of its means.

    Compared by identity, so that what several fits share can be cached by the grid.

    Attributes:
      keys: batch size and examples of each of N cells.
      mean_N: over seeds.
      drawn_RxN: None without a measure of noise.
    """

    keys: tuple[tuple[int, float], ...]
    mean_N: np.ndarray
    drawn_RxN: np.ndarray | None

    def budgets(self, size: int) -> list[int]:
        """Indices of the cells of a batch size, by rising budget."""
        mine = [i for i, (b, _) in enumerate(self.keys) if b == size]
        return sorted(mine, key=lambda i: self.keys[i][1])

    @property
    def sizes(self) -> list[int]:
        """Batch sizes with two budgets or more."""
        every = sorted({b for b, _ in self.keys})
        return [size for size in every if len(self.budgets(size)) > 1]


@dataclass(frozen=True, kw_only=True)
class CriticalBatch:
    """The fit of one form at one target.

    Attributes:
      target: quality, in percent.
      sizes, examples: the batch sizes that were used, and the examples that each needs.
      examples_min, steps_min: E_min and S_min.
      batch, low, high: B_crit and its 95 % bootstrap interval, NaN without a measure of noise; 0
        and infinite where one of E_min and S_min is zero.
      negatives: C and a; zero for the hyperbola.
      rms: residuals, relative to the examples.
      identified: whether the interval is within the batch sizes of the fit.
      left_out: batch sizes below those of the fit, with the examples that they need.
      drawn_Rx2: draws of B_crit and E_min.
    """

    form: str
    target: float
    sizes: tuple[int, ...]
    examples: tuple[float, ...]
    examples_min: float
    steps_min: float
    batch: float
    low: float
    high: float
    negatives: tuple[float, float]
    rms: float
    identified: bool
    left_out: Mapping[int, float]
    drawn_Rx2: np.ndarray | None

    @property
    def fewest_steps(self) -> float:
        """Of the shortest run that the fit rests on."""
        return min(e / b for b, e in zip(self.sizes, self.examples, strict=True))

    def curve(self, sizes: np.ndarray) -> np.ndarray:
        """Examples to the target at these batch sizes."""
        b = np.asarray(sizes, float)
        c, a = self.negatives
        return self.examples_min + self.steps_min * b + c * b**-a


@dataclass(frozen=True, kw_only=True)
class Trend:
    """How B_crit moves with the target: one exponent for each of the two forms.

    Attributes:
      error, data: k of `error^-k` and m of `E_min^m`, each with its 95 % bootstrap interval.
      rms_error, rms_data: scatter of log B_crit about the two forms.
      closer: "error" or "data" where one form is closer in 97.5 % of the draws, else "".
      targets: those of the fit.
    """

    error: tuple[float, float, float]
    data: tuple[float, float, float]
    rms_error: float
    rms_data: float
    closer: str
    targets: tuple[float, ...]


def draw_quality(
    values: Mapping[tuple[int, float], Sequence[float]],
    *,
    items: Mapping[tuple[int, float], np.ndarray] | None = None,
    spread: tuple[float, int] | None = None,
    number: int = DRAWS,
) -> QualityGrid:
    """Means of final quality, with draws over seeds and, where given, evaluated examples.

    Args:
      values: by batch size and examples, one per seed.
      items, spread: as for `draw_means`.
    """
    keys = tuple(sorted(key for key, each in values.items() if len(each)))
    of_items = None
    if items is not None:
        of_items = {i: items[key] for i, key in enumerate(keys) if key in items}
    drawn = draw_means(
        {i: values[key] for i, key in enumerate(keys)},
        items=of_items,
        spread=spread,
        number=number,
    )
    return QualityGrid(keys=keys, mean_N=drawn.mean_K, drawn_RxN=drawn.drawn_RxK)


@functools.lru_cache(maxsize=64)
def examples_to(grid: QualityGrid, target: float) -> dict[int, tuple[float, np.ndarray | None]]:
    """Examples that end at the target by batch size: from the means, and from each draw.

    Batch sizes whose measured budgets do not enclose the target are left out; a draw may lie
    outside by its noise, and is continued along the nearest pair of budgets.
    """
    found = {}
    for size, at in _enclosing(grid, target).items():
        mean_M = grid.mean_N[at]
        log_M = np.log([grid.keys[i][1] for i in at])
        drawn = None
        if grid.drawn_RxN is not None:
            drawn = _crossing(log_M, grid.drawn_RxN[:, at], target)
        found[size] = (float(_crossing(log_M, mean_M[None], target)[0]), drawn)
    return found


def choose_targets(grids: Sequence[QualityGrid]) -> list[float]:
    """Round numbers at which a grid has batch sizes enough for a fit, from low to high."""
    values = np.concatenate([grid.mean_N for grid in grids])
    low, high = max(values.min(), values.max() / QUARTER), values.max()
    step = next((s for s in STEPS if s * TARGETS >= high - low), STEPS[-1])
    targets = step * np.arange(np.ceil(low / step), np.ceil(high / step))
    return [
        round(float(target), 6)
        for target in targets
        if any(len(_enclosing(grid, target)) >= FEWEST_SIZES for grid in grids)
    ]


def fit_critical_batch(
    grid: QualityGrid, target: float, form: str = "hyperbola"
) -> CriticalBatch | None:
    """Fits one of `CRITICAL_FORMS` to the examples to a target, relative errors counting alike.

    Returns: None with as few batch sizes as parameters.
    """
    found = examples_to(grid, target)
    every = sorted(found)
    sizes = _beyond_the_best(grid, target, found) if form == "hyperbola" else every
    if len(sizes) <= PARAMETERS[form]:
        return None
    sizes_K = np.array(sizes, float)
    examples_K = np.array([found[size][0] for size in sizes])
    estimate_1x4 = _fit(examples_K[None], sizes_K, form)
    e_min, s_min, c, a = estimate_1x4[0].tolist()
    low, high, drawn_Rx2 = float("nan"), float("nan"), None
    if grid.drawn_RxN is not None:
        drawn_RxK = np.stack([drawn for size in sizes if (drawn := found[size][1]) is not None], 1)
        drawn_Rx4 = _fit(drawn_RxK, sizes_K, form)
        drawn_Rx2 = np.stack([_ratio(drawn_Rx4), drawn_Rx4[:, 0]], axis=1)
        low, high = interval(drawn_Rx2[:, 0])
    fit = CriticalBatch(
        form=form,
        target=target,
        sizes=tuple(sizes),
        examples=tuple(examples_K.tolist()),
        examples_min=e_min,
        steps_min=s_min,
        batch=float(_ratio(estimate_1x4)[0]),
        low=low,
        high=high,
        negatives=(c, a),
        rms=0.0,
        identified=bool(sizes_K[0] <= low and high <= sizes_K[-1]),
        left_out={size: found[size][0] for size in every if size < sizes[0]},
        drawn_Rx2=drawn_Rx2,
    )
    miss_K = fit.curve(sizes_K) / examples_K - 1
    return replace(fit, rms=float(np.sqrt((miss_K**2).mean())))


def fit_trend(fits: Sequence[CriticalBatch]) -> Trend | None:
    """Exponents of B_crit over the targets, from fits to one grid.

    Returns: None with fewer than four identified targets that have their batch sizes in common.
    """
    fits = [fit for fit in fits if fit.identified]
    # Another set of batch sizes moves the fit by itself.
    sets = [fit.sizes for fit in fits]
    fits = [fit for fit in fits if fit.sizes == max(sets, key=sets.count)]
    if len(fits) < FEWEST_TARGETS:
        return None
    error_T = np.log([100 - fit.target for fit in fits])
    values_TxRx2 = np.array(
        [
            [(fit.batch, fit.examples_min), *fit.drawn_Rx2]
            for fit in fits
            if fit.drawn_Rx2 is not None  # of an identified fit it is known
        ]
    )
    inside_R = ((values_TxRx2 > 0) & np.isfinite(values_TxRx2)).all(axis=(0, 2))
    batch_RxT, data_RxT = np.log(values_TxRx2[:, inside_R]).transpose(2, 1, 0)
    k_R, rms_k_R = _slopes(np.broadcast_to(-error_T, batch_RxT.shape), batch_RxT)
    m_R, rms_m_R = _slopes(data_RxT, batch_RxT)
    share = float((rms_m_R[1:] < rms_k_R[1:]).mean())
    return Trend(
        error=(float(k_R[0]), *interval(k_R[1:])),
        data=(float(m_R[0]), *interval(m_R[1:])),
        rms_error=float(rms_k_R[0]),
        rms_data=float(rms_m_R[0]),
        closer="data" if share >= 0.975 else "error" if share <= 0.025 else "",
        targets=tuple(fit.target for fit in fits),
    )


def _slopes(x_RxT: np.ndarray, y_RxT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slope of each row, and the scatter about it."""
    x, y = (v - v.mean(axis=1, keepdims=True) for v in (x_RxT, y_RxT))
    slope_R = (x * y).sum(axis=1) / (x**2).sum(axis=1)
    return slope_R, np.sqrt(((y - slope_R[:, None] * x) ** 2).mean(axis=1))


def _enclosing(grid: QualityGrid, target: float) -> dict[int, list[int]]:
    """By batch size, the indices of its cells, where their means enclose the target."""
    cells = {size: grid.budgets(size) for size in grid.sizes}
    return {
        size: at
        for size, at in cells.items()
        if grid.mean_N[at[0]] <= target <= grid.mean_N[at[-1]]
    }


def _beyond_the_best(
    grid: QualityGrid, target: float, found: Mapping[int, tuple[float, Any]]
) -> list[int]:
    """The batch sizes from the one that needs fewest examples on.

    A size that is beyond the target at its smallest budget may need fewer than all others.
    """
    sooner = [b for b in grid.sizes if grid.mean_N[grid.budgets(b)[0]] > target]
    sizes = [b for b in sorted(found) if b > max(sooner, default=0)]
    first = int(np.argmin([found[b][0] for b in sizes])) if sizes else 0
    return sizes[first:]


def _crossing(log_M: np.ndarray, y_RxM: np.ndarray, target: float) -> np.ndarray:
    """Examples at which each curve first reaches the target; at most one octave beyond the ends."""
    octave = np.log(2)
    rise = np.diff(y_RxM, axis=1) / np.diff(log_M)
    before = y_RxM[:, :1] - np.maximum(rise[:, :1], 1e-9) * octave
    after = y_RxM[:, -1:] + np.maximum(rise[:, -1:], 1e-9) * octave
    fine_G = np.linspace(log_M[0], log_M[-1], KNOTS)
    inside_RxG = PchipInterpolator(log_M, y_RxM, axis=1)(fine_G)
    x_G = np.array([log_M[0] - octave, *fine_G, log_M[-1] + octave])
    y_RxG = np.concatenate([before, inside_RxG, after], axis=1)
    up_R = np.clip((y_RxG >= target).argmax(axis=1), 1, None)
    up_R[y_RxG.max(axis=1) < target] = len(x_G) - 1
    row_R = np.arange(len(y_RxG))
    low_R, high_R = y_RxG[row_R, up_R - 1], y_RxG[row_R, up_R]
    share_R = np.clip((target - low_R) / np.where(high_R == low_R, 1.0, high_R - low_R), 0, 1)
    return np.exp(x_G[up_R - 1] + share_R * (x_G[up_R] - x_G[up_R - 1]))


def _fit(examples_RxK: np.ndarray, sizes_K: np.ndarray, form: str) -> np.ndarray:
    """E_min, S_min, C and a of each row, `R x 4`, by non-negative least squares.

    For an exponent the form is linear, and of the three columns or fewer the best subset whose
    weights are positive is the non-negative solution.
    """
    columns = [np.ones_like(sizes_K), sizes_K / sizes_K.max()]
    subsets = [(0,), (1,), (0, 1)]
    exponents = [0.0] if form == "hyperbola" else EXPONENTS
    if form == "negatives":
        subsets += [(2,), (0, 2), (1, 2), (0, 1, 2)]
    rows = np.arange(len(examples_RxK))
    best_R = np.full(len(rows), np.inf)
    theta_Rx4 = np.zeros((len(rows), 4))
    for a in exponents:
        table_KxC = np.stack([*columns, (sizes_K / sizes_K.min()) ** -a], axis=1)
        for subset in subsets:
            x_RxKxC = table_KxC[:, subset] / examples_RxK[:, :, None]
            gram_RxCxC = x_RxKxC.transpose(0, 2, 1) @ x_RxKxC
            weight_RxC = np.linalg.solve(gram_RxCxC, x_RxKxC.sum(axis=1)[:, :, None])[..., 0]
            miss_R = ((np.einsum("rkc,rc->rk", x_RxKxC, weight_RxC) - 1) ** 2).sum(axis=1)
            better_R = (weight_RxC > 0).all(axis=1) & (miss_R < best_R)
            best_R[better_R] = miss_R[better_R]
            theta_Rx4[better_R] = 0.0
            theta_Rx4[np.ix_(better_R, subset)] = weight_RxC[better_R]
            theta_Rx4[better_R, 3] = a
    theta_Rx4[:, 1] /= sizes_K.max()
    theta_Rx4[:, 2] *= sizes_K.min() ** theta_Rx4[:, 3]
    return theta_Rx4


def _ratio(theta_Rx4: np.ndarray) -> np.ndarray:
    """E_min over S_min, infinite where S_min is zero."""
    e_min_R, s_min_R = theta_Rx4[:, 0], theta_Rx4[:, 1]
    return np.where(s_min_R > 0, e_min_R / np.where(s_min_R > 0, s_min_R, 1.0), np.inf)
