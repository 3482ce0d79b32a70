"""The critical batch size: where more examples per step stop saving steps (McCandlish 2018).

The steps S and examples E = S * B to reach a target are on a hyperbola,
`(S / S_min - 1) * (E / E_min - 1) = 1`, or `E = E_min + S_min * B`, with B_crit = E_min / S_min.
Steps fall short of linear scaling by 20 % (Zhang 2025) where E = 1.2 * E_min, at B = B_crit / 5.

With a contrastive loss a very small batch has few negatives and may need more examples than a
larger one. The hyperbola does not allow that: it is fitted from the batch size that needs the
fewest examples on, and `left_out` names the smaller ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit

from analysis.stats.resample import DRAWS, draw_means, interval

OVERHEAD = 0.2
SCALES = 400  # candidates for B_crit of a draw


@dataclass(frozen=True, kw_only=True)
class CriticalBatch:
    """The fit.

    Attributes:
      examples_min, steps_min: E_min and S_min.
      batch, low, high: B_crit and its 95 % bootstrap interval over seeds, NaN with one seed.
      identified: whether the interval is within the batch sizes.
      left_out: batch sizes below the one that needs fewest examples.
      smallest, largest: the batch sizes of the fit.
    """

    examples_min: float
    steps_min: float
    batch: float
    low: float
    high: float
    identified: bool
    left_out: tuple[int, ...]
    smallest: int
    largest: int

    @property
    def at_overhead(self) -> tuple[float, float, float]:
        """Estimate, low and high of the batch size with 20 % overhead."""
        return OVERHEAD * self.batch, OVERHEAD * self.low, OVERHEAD * self.high

    def examples(self, sizes: np.ndarray) -> np.ndarray:
        """Examples to the target at these batch sizes."""
        return self.examples_min + self.steps_min * np.asarray(sizes, float)


def fit_critical_batch(
    examples: Mapping[int, Sequence[float]], *, number: int = DRAWS
) -> CriticalBatch | None:
    """Fits the hyperbola to the logarithm of the examples to a target.

    Args:
      examples: by batch size, of every cell that reached it, one per seed. Batch sizes of which
        a cell did not are to be left out by the caller: their mean would be too small.

    Returns: None with fewer than three batch sizes.
    """
    data = draw_means({b: list(np.log(v)) for b, v in examples.items() if len(v)}, number=number)
    if len(data.levels_K) < 3:
        return None
    first = int(data.mean_K.argmin())
    sizes_K, mean_K = data.levels_K[first:], data.mean_K[first:]
    if len(sizes_K) < 3:
        return None
    weight_K = data.count_K[first:].astype(float)
    scale_G = np.geomspace(sizes_K[0] / 64, sizes_K[-1] * 64, SCALES)
    bounds = ([-np.inf, np.log(scale_G[0])], [np.inf, np.log(scale_G[-1])])
    theta, _ = curve_fit(
        lambda b, log_e_min, log_batch: log_e_min + np.log1p(b * np.exp(-log_batch)),
        sizes_K,
        mean_K,
        p0=[mean_K[0], np.log(sizes_K).mean()],
        sigma=weight_K**-0.5,
        bounds=bounds,
    )
    low, high = float("nan"), float("nan")
    if data.drawn_RxK is not None:
        low, high = interval(_search(data.drawn_RxK[:, first:], weight_K, sizes_K, scale_G))
    e_min, batch = float(np.exp(theta[0])), float(np.exp(theta[1]))
    return CriticalBatch(
        examples_min=e_min,
        steps_min=e_min / batch,
        batch=batch,
        low=low,
        high=high,
        identified=bool(sizes_K[0] <= low and high <= sizes_K[-1]),
        left_out=tuple(int(size) for size in data.levels_K[:first]),
        smallest=int(sizes_K[0]),
        largest=int(sizes_K[-1]),
    )


def _search(
    y_RxK: np.ndarray, weight_K: np.ndarray, sizes_K: np.ndarray, scale_G: np.ndarray
) -> np.ndarray:
    """B_crit by least squares over candidates, with E_min in closed form; one for each row."""
    w_K = weight_K / weight_K.sum()
    phi_GxK = np.log1p(sizes_K / scale_G[:, None])
    mean_G = phi_GxK @ w_K
    spread_G = (phi_GxK - mean_G[:, None]) ** 2 @ w_K
    centred_RxK = y_RxK - (y_RxK @ w_K)[:, None]
    squares_RxG = spread_G - 2 * (centred_RxK * w_K) @ (phi_GxK - mean_G[:, None]).T
    return scale_G[squares_RxG.argmin(axis=1)]
