"""Keeping an exact number of negatives at random, pair by pair, with nothing looked up.

A keyed permutation of all negatives is worked out where a pair is met, and a pair is kept when
its place comes before the number wanted. So the choice is a pure function of (seed, i, j), exact
to the pair, and needs neither a search nor a table.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from study.config.pairs import Negatives
from study.rng import mix


def random_mask(
    pairs: Negatives, batch_size: int, seed: jax.Array, i_Tx1: jax.Array, j_1xT: jax.Array
) -> jax.Array:
    """Mask `TxT` of the pairs kept; positives are not looked at.

    Over the whole batch `pairs.negatives(batch_size)` are kept, or exactly `per_positive` in each
    row when the scope is "row".
    """
    seed = seed.astype(jnp.uint32)
    i_TxT, j_TxT = jnp.broadcast_arrays(i_Tx1, j_1xT)
    # The negatives of row i in the order of their distance behind it: 0 .. B-2.
    o_TxT = j_TxT - i_TxT
    o_TxT = jnp.where(o_TxT < 0, o_TxT + batch_size, o_TxT) - 1
    if pairs.scope == "batch":
        i_TxT, o_TxT = _shuffled(i_TxT, o_TxT, (batch_size, batch_size - 1), seed)
        full, rest = divmod(pairs.negatives(batch_size), batch_size - 1)
        return (i_TxT < full) | ((i_TxT == full) & (o_TxT < rest))
    # Numbers below B-1 as two digits of a base whose square just holds them: a number that leaves
    # the range is permuted on until it is back, which is a permutation of the range.
    base = math.isqrt(batch_size - 2) + 1
    row_Tx1 = mix(seed + mix(i_Tx1.astype(jnp.uint32)))

    def astray(digits: Any) -> jax.Array:
        return digits[0] * base + digits[1] >= batch_size - 1

    def onward(digits: Any) -> Any:
        out_TxT = astray(digits)
        moved = _shuffled(digits[0], digits[1], (base, base), row_Tx1)
        return tuple(jnp.where(out_TxT, new, old) for new, old in zip(moved, digits, strict=True))

    # Positives start outside of the range and would never find in.
    o_TxT = jnp.clip(o_TxT, 0, batch_size - 2)
    digits = _shuffled(o_TxT // base, o_TxT % base, (base, base), row_Tx1)
    high, low = lax.while_loop(lambda d: jnp.any(astray(d)), onward, digits)
    return high * base + low < int(pairs.per_positive)


def _shuffled(u: jax.Array, v: jax.Array, sizes: tuple[int, int], seed: jax.Array) -> Any:
    """A permutation of all (u, v) with 0 <= u < sizes[0] and 0 <= v < sizes[1].

    A Feistel network with addition in place of exclusive or: each round shifts one number by a
    hash of the other, which the other can undo.
    """
    for turn in range(2):
        v = _shifted(v, mix(mix(seed + jnp.uint32(2 * turn + 1)) + u.astype(jnp.uint32)), sizes[1])
        u = _shifted(u, mix(mix(seed + jnp.uint32(2 * turn + 2)) + v.astype(jnp.uint32)), sizes[0])
    return u, v


def _shifted(x: jax.Array, hashed: jax.Array, size: int) -> jax.Array:
    """`x` plus a hash, around `size`."""
    # 24 bits are exact in float32, and a product of floats is fast where a 32-bit modulus is not.
    shift = (hashed >> 8).astype(jnp.float32) * (size / 2**24)
    moved = x + jnp.minimum(shift.astype(jnp.int32), size - 1)
    return jnp.where(moved >= size, moved - size, moved)
