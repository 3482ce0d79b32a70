"""The best learning rate of a search, between the rates tried, and how it follows the batch size.

At each batch size quality is a parabola in the logarithm of the rate through the best rate tried
and its two neighbours, and the optimum is its vertex. Where the best rate is the lowest or the
highest tried there is no such parabola, and the optimum may lie anywhere beyond.

Intervals are from a parametric bootstrap over the noise between seeds, in which each draw chooses
its own best three. How the optimum follows the batch size, `rate ~ B^a`, is a weighted line through
the logarithms; if they scatter about it by more than their intervals, that of `a` is widened by the
same factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.resample import DRAWS, interval, seed_noise


@dataclass(frozen=True, kw_only=True)
class BestRate:
    """The optimum of one search.

    Attributes:
      rate, low, high: the optimum and its 95 % interval; an end is 0 or infinite where draws have
        their best rate at the lowest or highest tried, NaN without a measure of noise.
      quality: at the vertex, or at the best rate tried where that is an edge.
      edge: "lowest" or "highest" where the best rate tried is at that end, else "".
      parabola: coefficients in log(rate), highest power first; None at an edge.
      lowest, highest: of the rates tried.
      tried: how many.
      drawn_R: draws of the optimum.
    """

    rate: float
    low: float
    high: float
    quality: float
    edge: str
    parabola: tuple[float, float, float] | None
    lowest: float
    highest: float
    tried: int
    drawn_R: np.ndarray | None

    @property
    def identified(self) -> bool:
        """Whether the interval lies between the rates tried."""
        return self.lowest <= self.low and self.high <= self.highest


@dataclass(frozen=True, kw_only=True)
class RateExponent:
    """`rate = scale * B^a`.

    Attributes:
      a, low, high: the exponent and its 95 % interval, NaN without a measure of noise.
      sizes: the batch sizes of the fit, without those whose best rate is at an edge.
      spread: scatter about the line over that which the intervals explain, at least 1.
    """

    a: float
    low: float
    high: float
    scale: float
    sizes: tuple[int, ...]
    spread: float

    def rate(self, sizes: np.ndarray) -> np.ndarray:
        """The best rate at these batch sizes."""
        return self.scale * np.asarray(sizes, float) ** self.a


def fit_best_rate(
    quality: Mapping[float, Sequence[float]],
    *,
    noise: tuple[float, int] | None = None,
    number: int = DRAWS,
) -> BestRate | None:
    """The optimum between the rates tried.

    Args:
      quality: by learning rate, one value per seed.
      noise: standard deviation between seeds, and its degrees of freedom.

    Returns: None with fewer than three rates.
    """
    rates = sorted(rate for rate, each in quality.items() if len(each))
    if len(rates) < 3:
        return None
    x_K = np.log(rates)
    y_K = np.array([np.mean(quality[rate]) for rate in rates])
    vertex, parabola_1x3, at = _vertices(x_K, y_K[None])
    inside = 0 < at[0] < len(rates) - 1
    drawn_R, low, high = None, float("nan"), float("nan")
    if noise is not None:
        count_K = np.array([len(quality[rate]) for rate in rates])
        drawn_RxK = y_K + seed_noise(np.random.default_rng(0), *noise, count_K, number)
        drawn_R = np.exp(_vertices(x_K, drawn_RxK)[0])
        low, high = interval(drawn_R)
    best = float(np.exp(vertex[0])) if inside else rates[at[0]]
    parabola = tuple(parabola_1x3[0].tolist()) if inside else None
    return BestRate(
        rate=best,
        low=low,
        high=high,
        quality=float(np.polyval(parabola, vertex[0])) if parabola else float(y_K[at[0]]),
        edge="" if inside else "lowest" if at[0] == 0 else "highest",
        parabola=parabola,
        lowest=rates[0],
        highest=rates[-1],
        tried=len(rates),
        drawn_R=drawn_R,
    )


def fit_rate_exponent(best: Mapping[int, BestRate]) -> RateExponent | None:
    """The exponent of the best rate over batch size.

    Returns: None with fewer than two batch sizes whose best rate is between those tried.
    """
    sizes = sorted(size for size, fit in best.items() if not fit.edge)
    if len(sizes) < 2:
        return None
    x_K, y_K = np.log(sizes), np.log([best[size].rate for size in sizes])
    drawn = [fit.drawn_R for size in sizes if (fit := best[size]).drawn_R is not None]
    if len(drawn) < len(sizes):
        a, log_scale = np.polyfit(x_K, y_K, 1)
        nan = float("nan")
        return RateExponent(
            a=float(a), low=nan, high=nan, scale=float(np.exp(log_scale)), sizes=tuple(sizes),
            spread=nan,
        )  # fmt: skip
    # A draw at an edge is somewhere beyond it: one factor of two, the usual step of a search.
    log_KxR = np.log(
        [
            np.clip(draws_R, best[size].lowest / 2, best[size].highest * 2)
            for size, draws_R in zip(sizes, drawn, strict=True)
        ]
    )
    weight_K = 1 / np.maximum(log_KxR.var(axis=1), 1e-12)
    middle = (weight_K * x_K).sum() / weight_K.sum()
    slope_K = weight_K * (x_K - middle) / (weight_K * (x_K - middle) ** 2).sum()
    a = float(slope_K @ y_K)
    log_scale = float((weight_K * y_K).sum() / weight_K.sum()) - a * middle
    dof = len(sizes) - 2
    squares = float((weight_K * (y_K - log_scale - a * x_K) ** 2).sum())
    spread = max(1.0, np.sqrt(squares / dof)) if dof else 1.0
    low, high = interval(slope_K @ log_KxR - float((slope_K @ log_KxR).mean()))
    return RateExponent(
        a=a,
        low=a + spread * low,
        high=a + spread * high,
        scale=float(np.exp(log_scale)),
        sizes=tuple(sizes),
        spread=float(spread),
    )


def _vertices(x_K: np.ndarray, y_RxK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row the vertex, -inf or inf where the best is an edge; the parabola through the best
    three, `R x 3`; and the index of the best."""
    at_R = y_RxK.argmax(axis=1)
    middle_R = np.clip(at_R, 1, len(x_K) - 2)
    three_Rx3 = middle_R[:, None] + np.array([-1, 0, 1])
    parabola_Rx3 = np.linalg.solve(
        np.stack([x_K[three_Rx3] ** 2, x_K[three_Rx3], np.ones(three_Rx3.shape)], axis=2),
        np.take_along_axis(y_RxK, three_Rx3, axis=1)[:, :, None],
    )[..., 0]
    inside_R = at_R == middle_R
    curvature_R = np.where(inside_R, parabola_Rx3[:, 0], -1.0)
    vertex_R = np.where(inside_R, -parabola_Rx3[:, 1] / (2 * curvature_R), np.inf)
    return np.where(at_R == 0, -np.inf, vertex_R), parabola_Rx3, at_R
