"""The Pareto front: what no other point beats at its cost or a lower one."""

from __future__ import annotations

import numpy as np


def pareto_front(cost_N: np.ndarray, quality_RxN: np.ndarray) -> np.ndarray:
    """Which points have a higher quality than all that cost as much or less, `R x N`, for each row
    of qualities, such as bootstrap draws. Of equal points the first is on the front."""
    order_N = np.argsort(cost_N, kind="stable")
    front_RxN = np.zeros(quality_RxN.shape, bool)
    for row, quality_N in enumerate(quality_RxN):
        # At one cost the best comes first, so that it alone may be on the front.
        rising = sorted(order_N.tolist(), key=lambda i: (cost_N[i], -quality_N[i]))
        best_N = np.maximum.accumulate(quality_N[rising])
        front_RxN[row, rising] = np.append(True, best_N[1:] > best_N[:-1])
    return front_RxN
