"""Steps and examples to a target; cells that do not reach it are right-censored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """When one cell reached the target. If `censored`, it did not, and the numbers are its end."""

    examples: float
    steps: float
    censored: bool


def first_crossing(
    curve: pd.DataFrame, metric: str, target: float, *, batch_size: int
) -> Crossing | None:
    """The first crossing of the target, interpolated between evaluations in log examples.

    Args:
      curve: rows of one cell with examples_seen and the metric.
      metric: smaller is better for a loss, larger for anything else.

    Returns: None if the metric was never measured, or if its first value is already beyond the
      target, so that the crossing was not observed.
    """
    known = curve[curve[metric].notna() & (curve["examples_seen"] > 0)]
    if known.empty:
        return None
    sign = -1.0 if is_loss(metric) else 1.0
    # examples are exact integers of any size
    x = np.log([float(count) for count in known["examples_seen"]])
    y = sign * known[metric].to_numpy(float)
    hits = np.flatnonzero(y >= sign * target)
    if not len(hits):
        end = math.exp(x[-1])
        return Crossing(examples=end, steps=end / batch_size, censored=True)
    at = int(hits[0])
    if at == 0:
        return None
    share = (sign * target - y[at - 1]) / (y[at] - y[at - 1])
    examples = math.exp(x[at - 1] + share * (x[at] - x[at - 1]))
    return Crossing(examples=examples, steps=examples / batch_size, censored=False)


def default_target(finals: pd.Series, metric: str) -> float:
    """A target that half of the batch sizes reach: the median of their mean last values.

    Args:
      finals: the last value of each cell, indexed by batch size.
    """
    means = finals.dropna().groupby(level=0).mean()
    return float(means.quantile(0.5, interpolation="higher" if is_loss(metric) else "lower"))


def is_loss(metric: str) -> bool:
    return metric.startswith("eval/val_loss/") or metric.endswith("/loss")
