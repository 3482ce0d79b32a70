"""Random 64-bit words as functions of what they are for: the same on every machine and NumPy."""

from __future__ import annotations

import numpy as np

# The step of splitmix64 (Steele, Lea and Flood 2014).
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix64(word_N: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input reaches every bit of the output."""
    word_N = (word_N ^ (word_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word_N = (word_N ^ (word_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word_N ^ (word_N >> np.uint64(31))


def streams(word_N: np.ndarray, count: int) -> np.ndarray:
    """`count` further words from each, uint64 `N x count`."""
    return mix64(word_N[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_GAMMA)


def uniform(word_N: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each word, float64."""
    return (word_N >> np.uint64(11)) * 2.0**-53
