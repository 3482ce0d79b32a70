"""An exact number of random negatives, as a pure function of (seed, i, j).

A keyed permutation maps each negative to a number below the number of negatives, and a pair is
kept if its number is below the number to keep. Any tile computes its own mask: there is no table,
no search and no communication.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from study.rng import mix


def random_mask(
    keep_2: jax.Array,
    batch_size: int,
    seed: jax.Array,
    i_Tx1: jax.Array,
    j_1xT: jax.Array,
    *,
    scope: Literal["batch", "row"],
) -> jax.Array:
    """Mask `TxT` of the kept negatives of a tile; its value for positives is arbitrary.

    It keeps exactly `keep_2` pairs of the whole batch, or of each row.

    Arguments:
      keep_2: their number as (high, low), `high * (batch_size - 1) + low`.
      seed: uint32 scalar.
      i_Tx1, j_1xT: numbers of the tile's images and texts in the global batch.
      scope: see `Negatives`.
    """
    seed = seed.astype(jnp.uint32)
    i_TxT, j_TxT = jnp.broadcast_arrays(i_Tx1, j_1xT)
    # Number the negatives of row i by the distance of their column after i: 0 .. B-2.
    o_TxT = j_TxT - i_TxT
    o_TxT = jnp.where(o_TxT < 0, o_TxT + batch_size, o_TxT) - 1
    full, rest = keep_2
    if scope == "batch":
        i_TxT, o_TxT = _permute(i_TxT, o_TxT, (batch_size, batch_size - 1), seed)
        return (i_TxT < full) | ((i_TxT == full) & (o_TxT < rest))
    # The network permutes pairs of digits, so a number below B-1 is written as two digits of the
    # smallest base that holds it. Results of B-1 and above are permuted again until they are in
    # range ("cycle walking"), which is a permutation of the range.
    base = math.isqrt(batch_size - 2) + 1
    row_Tx1 = mix(seed + mix(i_Tx1.astype(jnp.uint32)))

    def out_of_range(digits: Any) -> jax.Array:
        return digits[0] * base + digits[1] >= batch_size - 1

    def permute_again(digits: Any) -> Any:
        out_TxT = out_of_range(digits)
        moved = _permute(digits[0], digits[1], (base, base), row_Tx1)
        return tuple(jnp.where(out_TxT, new, old) for new, old in zip(moved, digits, strict=True))

    # Positives have no number in the range, and their walk would not end: give them any.
    o_TxT = jnp.clip(o_TxT, 0, batch_size - 2)
    digits = _permute(o_TxT // base, o_TxT % base, (base, base), row_Tx1)
    high, low = lax.while_loop(lambda d: jnp.any(out_of_range(d)), permute_again, digits)
    return high * base + low < full * (batch_size - 1) + rest


def _permute(u: jax.Array, v: jax.Array, sizes: tuple[int, int], seed: jax.Array) -> Any:
    """A keyed permutation of all (u, v) with 0 <= u < sizes[0] and 0 <= v < sizes[1].

    A Feistel network with modular addition instead of exclusive or: each round adds to one number
    a hash of the other, which is invertible.
    """
    for k in range(2):
        v = _shift(v, mix(mix(seed + jnp.uint32(2 * k + 1)) + u.astype(jnp.uint32)), sizes[1])
        u = _shift(u, mix(mix(seed + jnp.uint32(2 * k + 2)) + v.astype(jnp.uint32)), sizes[0])
    return u, v


def _shift(x: jax.Array, hashed: jax.Array, size: int) -> jax.Array:
    """`x` plus a hash, modulo `size`."""
    # 24 bits are exact in float32, and a float product is faster than a 32-bit modulus.
    shift = (hashed >> 8).astype(jnp.float32) * (size / 2**24)
    total = x + jnp.minimum(shift.astype(jnp.int32), size - 1)
    return jnp.where(total >= size, total - size, total)
