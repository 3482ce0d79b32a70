"""The saturation batch size: beyond it, no batch size gains more than a tolerance.

It is not the batch size with the best mean: several noisy means may be equally good. Two forms are
fitted, to show how far the answer depends on the form:

- power: `y = a - c * (1 + B / B0) ** -g`
- logarithm: `y = a - c * log(1 + B0 / B)`

The tolerance is a quarter of the rise of quality with the batch size, in claims and here.
Both rise to `a`, and the saturation batch is where the fit is the tolerance below it. Quality may
fall again where a fixed budget leaves too few steps: each fit, also of each draw, leaves out batch
sizes beyond the best one that are more than the tolerance below it. A form knows nothing of what
was left out, so a saturation batch beyond the largest size of the fit is an extrapolation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.stats.contrasts import quarter_of_rise
from analysis.stats.resample import MeanDraws, interval, seed_noise

SCALES, EXPONENTS = 48, 12  # candidates for B0 and g
NEWTON_STEPS = 4  # from the best candidate


@dataclass(frozen=True, kw_only=True)
class Form:
    """A family of curves `a - c * shape(B)`, where `shape` falls to zero.

    Attributes:
      shapes: from the batch sizes `K`, candidates for the parameters of `shape`, `G x P`.
      shape: from the batch sizes and parameters `R x P`, the shape `R x K`.
      saturated: from c, the parameters and the tolerance, the batch size at which `c * shape` is
        the tolerance.
    """

    shapes: Callable[[np.ndarray], np.ndarray]
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray]
    saturated: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    formula: str


def _scales(sizes_K: np.ndarray) -> np.ndarray:
    return np.geomspace(sizes_K[0] / 8, sizes_K[-1] * 8, SCALES)


def _power_shapes(sizes_K: np.ndarray) -> np.ndarray:
    both = np.meshgrid(_scales(sizes_K), np.geomspace(0.15, 4.0, EXPONENTS), indexing="ij")
    return np.stack([part.ravel() for part in both], axis=1)


# A curve too flat to come within the tolerance overflows to an infinite batch size, as it should.
def _power_batch(c: np.ndarray, shape: np.ndarray, tolerance: float) -> np.ndarray:
    with np.errstate(over="ignore", divide="ignore"):
        ratio = np.maximum(c, tolerance) / tolerance
        return shape[..., 0] * (ratio ** (1 / shape[..., 1]) - 1)


def _log_batch(c: np.ndarray, shape: np.ndarray, tolerance: float) -> np.ndarray:
    with np.errstate(over="ignore", divide="ignore"):
        return shape[..., 0] / np.expm1(tolerance / np.maximum(c, 1e-12))


FORMS: Mapping[str, Form] = {
    "power": Form(
        shapes=_power_shapes,
        shape=lambda b, p: (1 + b / p[..., :1]) ** -p[..., 1:2],
        saturated=_power_batch,
        formula="a - c (1 + B/B0)^-g",
    ),
    "logarithm": Form(
        shapes=lambda sizes_K: _scales(sizes_K)[:, None],
        shape=lambda b, p: np.log1p(p[..., :1] / b),
        saturated=_log_batch,
        formula="a - c log(1 + B0/B)",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """The fit of one form.

    Attributes:
      batch: the saturation batch size; zero if even the smallest batch size has nothing to gain.
      low, high: its 95 % bootstrap interval; NaN with one seed and too few batch sizes.
      identified: whether the interval is within the batch sizes of the fit, and these are more
        than its parameters.
      left_out: batch sizes beyond the best one that are worse by more than the tolerance.
      aic: Akaike's information criterion, to compare the forms; smaller is better.
      smallest, largest: the batch sizes of the fit.
    """

    form: str
    tolerance: float
    batch: float
    low: float
    high: float
    identified: bool
    left_out: tuple[int, ...]
    aic: float
    a: float
    c: float
    shape: tuple[float, ...]
    smallest: int
    largest: int

    @property
    def extrapolated(self) -> bool:
        """Whether the saturation batch is outside the batch sizes of the fit."""
        return not self.smallest <= self.batch <= self.largest

    def curve(self, sizes: np.ndarray) -> np.ndarray:
        """The fit at these batch sizes."""
        shape = FORMS[self.form].shape(np.asarray(sizes, float), np.array([self.shape]))[0]
        return self.a - self.c * shape

    def __str__(self) -> str:
        text = _format(self.batch, self.smallest, self.largest)
        if np.isnan(self.low):
            return f"{text} (no interval: one seed)"
        ends = [_format(end, self.smallest, self.largest) for end in (self.low, self.high)]
        grid = f"B = {self.smallest:,} to {self.largest:,}"
        prefix = "" if self.identified else f"not identified by {grid}: "
        return f"{prefix}{text} (95 % {ends[0]} to {ends[1]})"


def fit_saturation(
    data: MeanDraws, form: str, *, tolerance: float | None = None
) -> Saturation | None:
    """Fits one of `FORMS`; None with fewer than four batch sizes that do not fall off.

    Args:
      data: quality by batch size, in points.
      tolerance: the gain that does not count, in points; None is `quarter_of_rise`.
    """
    if tolerance is None:
        quality = dict(enumerate(data.mean_K))
        tolerance = sum(w * quality[k] for k, w in quarter_of_rise(quality).items())
    family, sizes_K = FORMS[form], data.levels_K
    keep_K = _rising(data.mean_K[None], tolerance)[0]
    if len(sizes_K) < 4 or keep_K.sum() < 4:
        return None
    a_1, c_1, shape_1xP = _fit(data.mean_K[None], (keep_K * data.count_K)[None], family, sizes_K)
    a, c, shape = float(a_1[0]), float(c_1[0]), shape_1xP[0]
    residual_K = (data.mean_K - (a - c * family.shape(sizes_K, shape_1xP)[0]))[keep_K]
    squares = float((data.count_K[keep_K] * residual_K**2).sum())
    kept, parameters = len(residual_K), 2 + len(shape)
    smallest, largest = int(sizes_K[keep_K][0]), int(sizes_K[keep_K][-1])
    drawn = data.drawn_RxK
    if drawn is None and kept > parameters:  # one seed: the scatter about the curve
        spread = float(np.sqrt(squares / (kept - parameters)))
        noise = seed_noise(np.random.default_rng(0), spread, kept - parameters, data.count_K, 500)
        drawn = data.mean_K + noise
    low, high = float("nan"), float("nan")
    if drawn is not None:
        weight_RxK = _rising(drawn, tolerance) * data.count_K
        _, c_R, shape_RxP = _fit(drawn, weight_RxK, family, sizes_K)
        low, high = interval(family.saturated(c_R, shape_RxP, tolerance))
    variance = data.sd**2 if data.dof and data.sd > 0 else max(squares / kept, 1e-12)
    return Saturation(
        form=form,
        tolerance=tolerance,
        batch=float(family.saturated(c_1, shape_1xP, tolerance)[0]),
        low=low,
        high=high,
        identified=kept > parameters and smallest <= low and high <= largest,
        left_out=tuple(int(size) for size in sizes_K[~keep_K]),
        aic=squares / variance + 2 * parameters,
        a=a,
        c=c,
        shape=tuple(float(value) for value in shape),
        smallest=smallest,
        largest=largest,
    )


def _rising(y_RxK: np.ndarray, tolerance: float) -> np.ndarray:
    """Which sizes a fit uses: all up to the best, and those beyond it that hold its level."""
    best_Rx1 = y_RxK.argmax(axis=1)[:, None]
    beyond = np.arange(y_RxK.shape[1])[None] > best_Rx1
    return ~(beyond & (y_RxK < y_RxK.max(axis=1, keepdims=True) - tolerance))


def _fit(
    y_RxK: np.ndarray, w_RxK: np.ndarray, family: Form, sizes_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted least squares for all rows at once; `scipy.optimize` takes them one by one, which
    is a hundred times slower.

    The best of the candidate shapes, with a and c >= 0 in closed form, then Gauss-Newton steps
    where they lower the squares: candidates are some percent apart.

    Returns: a `R`, c `R` and the parameters of the shape `R x P`.
    """
    shapes_GxP = family.shapes(sizes_K)
    phi_GxK = family.shape(sizes_K[None], shapes_GxP)
    total_Rx1 = w_RxK.sum(axis=1, keepdims=True)
    mean_RxG = w_RxK @ phi_GxK.T / total_Rx1
    level_Rx1 = (w_RxK * y_RxK).sum(axis=1, keepdims=True) / total_Rx1
    spread_RxG = w_RxK @ (phi_GxK**2).T - total_Rx1 * mean_RxG**2
    cross_RxG = (w_RxK * (y_RxK - level_Rx1)) @ phi_GxK.T
    c_RxG = np.maximum(-cross_RxG / np.maximum(spread_RxG, 1e-300), 0.0)
    gain_RxG = -2 * c_RxG * cross_RxG - c_RxG**2 * spread_RxG  # what c takes off the squares
    best_R, row_R = gain_RxG.argmax(axis=1), np.arange(len(y_RxK))
    c_R = c_RxG[row_R, best_R]
    a_R = level_Rx1[:, 0] + c_R * mean_RxG[row_R, best_R]
    shape_RxP = shapes_GxP[best_R]
    lowest_P, highest_P = shapes_GxP.min(axis=0), shapes_GxP.max(axis=0)
    step = 1e-4  # of a logarithm, for derivatives

    def squares(a_R: np.ndarray, c_R: np.ndarray, shape_RxP: np.ndarray) -> np.ndarray:
        fit_RxK = a_R[:, None] - c_R[:, None] * family.shape(sizes_K, shape_RxP)
        return (w_RxK * (y_RxK - fit_RxK) ** 2).sum(axis=1)

    for _ in range(NEWTON_STEPS):
        phi_RxK = family.shape(sizes_K, shape_RxP)
        columns = [np.ones_like(phi_RxK), -phi_RxK]
        for nudge in np.eye(shape_RxP.shape[1]) * step:
            up, down = (family.shape(sizes_K, shape_RxP * np.exp(sign * nudge)) for sign in (1, -1))
            columns.append(-c_R[:, None] * (up - down) / (2 * step))
        jacobian_RxKxQ = np.stack(columns, axis=2)
        weighted_RxQxK = (jacobian_RxKxQ * w_RxK[:, :, None]).transpose(0, 2, 1)
        normal_RxQxQ = weighted_RxQxK @ jacobian_RxKxQ
        ridge_RxQ = 1e-9 * np.einsum("rqq->rq", normal_RxQxQ) + 1e-12
        normal_RxQxQ = normal_RxQxQ + ridge_RxQ[:, :, None] * np.eye(ridge_RxQ.shape[1])
        residual_RxK = y_RxK - a_R[:, None] + c_R[:, None] * phi_RxK
        move_RxQ = np.linalg.solve(normal_RxQxQ, weighted_RxQxK @ residual_RxK[:, :, None])[..., 0]
        new_a, new_c = a_R + move_RxQ[:, 0], np.maximum(c_R + move_RxQ[:, 1], 0.0)
        new_shape = shape_RxP * np.exp(np.clip(move_RxQ[:, 2:], -0.5, 0.5))
        new_shape = np.clip(new_shape, lowest_P, highest_P)
        better = squares(new_a, new_c, new_shape) < squares(a_R, c_R, shape_RxP)
        a_R, c_R = np.where(better, new_a, a_R), np.where(better, new_c, c_R)
        shape_RxP = np.where(better[:, None], new_shape, shape_RxP)
    return a_R, c_R, shape_RxP


def _format(batch: float, smallest: int, largest: int) -> str:
    if batch < smallest:
        return f"below {smallest:,}"
    return f"beyond {largest:,}" if batch > largest else f"{batch:,.0f}"
