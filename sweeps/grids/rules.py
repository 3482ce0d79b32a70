"""How a setting follows the batch size: rules that a grid holds as values.

>>> PowerRule(value=0.01, at=256, exponent=0.5)(1024)
0.02
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PowerRule:
    """`value * (B / at) ** exponent`, constant beyond a largest batch size.

    As a learning rate, exponent 0 is the paper's (one rate at all batch sizes), 0.5 the usual rule
    for Adam (Malladi et al., arXiv 2205.10287), and 1 that for SGD (Goyal et al., 1706.02677).

    Attributes:
      value: at batch size `at`.
      largest: batch size beyond which the value stays; None for no end.
    """

    value: float
    at: int
    exponent: float
    largest: int | None = None

    def __call__(self, batch_size: int) -> float:
        largest = batch_size if self.largest is None else self.largest
        return self.value * (min(batch_size, largest) / self.at) ** self.exponent


@dataclass(frozen=True, kw_only=True)
class TableRule:
    """Values at some batch sizes; between two of them a power of B, beyond them the nearest.

    Values between are rounded to three digits, so that cells have the same ids on all machines.
    """

    values: Mapping[int, float]

    def __call__(self, batch_size: int) -> float:
        if batch_size in self.values:
            return self.values[batch_size]
        smaller = [size for size in self.values if size < batch_size]
        larger = [size for size in self.values if size > batch_size]
        if not smaller or not larger:
            return self.values[min(larger) if larger else max(smaller)]
        below, above = max(smaller), min(larger)
        low, high = self.values[below], self.values[above]
        exponent = math.log(high / low) / math.log(above / below)
        return float(f"{low * (batch_size / below) ** exponent:.3g}")


def marin_b2(batch_size: int) -> float:
    """0.999 ** (B / 32) between 0.95 and 0.9999, Adam's b2 of marin's language models.

    Within the bounds it is `Adam(b2_half_life_examples=22_169)`.
    """
    return min(max(0.999 ** (batch_size / 32), 0.95), 0.9999)
