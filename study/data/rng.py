"""Random 64-bit words of the data pipeline, in NumPy: functions of their arguments alone.

They are the same on every machine and with every NumPy. `study.rng` has the random numbers that
compiled programs use.
"""

from __future__ import annotations

import numpy as np

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele, Lea and Flood 2014)


def mix64(word_N: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: every input bit affects every output bit."""
    word_N = (word_N ^ (word_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word_N = (word_N ^ (word_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word_N ^ (word_N >> np.uint64(31))


def streams(word_N: np.ndarray, count: int) -> np.ndarray:
    """The first `count` words of a splitmix64 stream seeded with each word, uint64 N x count."""
    return mix64(word_N[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_GAMMA)


def uniform(word_N: np.ndarray) -> np.ndarray:
    """A float64 in [0, 1) from each word."""
    return (word_N >> np.uint64(11)) * 2.0**-53
