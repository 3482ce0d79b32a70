"""A keyed permutation of range(n) in constant memory, for any n."""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDS = 4


def permute(x_N: np.ndarray, *, size: int, key: np.ndarray, inverse: bool = False) -> np.ndarray:
    """A keyed pseudo-random permutation of range(size): a Feistel network with cycle walking.

    Arguments:
      x_N: int64 in range(size).
      key: 32-bit words, `ROUNDS`, or `ROUNDS x N` for one permutation per element.
      inverse: apply the inverse permutation.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    x_N = x_N.astype(np.uint64)
    out_N = np.empty_like(x_N)
    todo = np.arange(len(x_N))
    key = key[::-1] if inverse else key
    while len(todo):
        left, right = x_N >> shift, x_N & mask
        for k in key:
            if inverse:
                left, right = right ^ (mix32(left, k) & mask), left
            else:
                left, right = right, left ^ (mix32(right, k) & mask)
        x_N = (left << shift) | right
        # The network permutes a power of 4, at most 4 times the size: values outside go again.
        inside = x_N < size
        out_N[todo[inside]] = x_N[inside]
        x_N, todo = x_N[~inside], todo[~inside]
        if key.ndim == 2:
            key = key[:, ~inside]
    return out_N.astype(np.int64)


def mix32(x: np.ndarray, key: Any) -> np.ndarray:
    """A keyed mix of 32-bit words held in uint64 (the finalizer of murmur3)."""
    low = np.uint64(0xFFFFFFFF)
    x = (x ^ np.asarray(key, np.uint64)) & low
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & low
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & low
    return x ^ (x >> np.uint64(16))
