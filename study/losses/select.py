"""Choosing negatives exactly: how much each pair weighs in the loss (paper Sec. 4.8)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from study.losses.stats import Axis, psum
from study.pairs import Negatives


def weights(
    l_bxB: jax.Array,
    positive_bxB: jax.Array,
    pairs: Negatives,
    *,
    seed: jax.Array,
    first_row: jax.Array | int,
    axis: Axis,
) -> jax.Array:
    """Weights in [0, 1] that sum to exactly the number of negatives asked for.

    The highest scores get weight 1: logits for "hard" (a negative's loss rises with its logit),
    negated logits for "easy", a hash of (seed, i, j) for "random". Pairs that tie at the
    threshold share what is left. Positives get 0.
    """
    match pairs.keep:
        case "hard":
            order_bxB = _ordered(l_bxB)
        case "easy":
            order_bxB = _ordered(-l_bxB)
        case "random":
            rows = jnp.arange(l_bxB.shape[0], dtype=jnp.uint32) + jnp.uint32(first_row)
            cols = jnp.arange(l_bxB.shape[1], dtype=jnp.uint32)
            order_bxB = pair_hash(seed, rows[:, None], cols[None, :])
    # 0 is below every order that a finite logit has, and one hash in 2**32.
    order_bxB = jnp.where(positive_bxB, jnp.uint32(0), order_bxB)
    by_row = pairs.scope == "row"
    keep = int(pairs.per_positive) if by_row else pairs.negatives(l_bxB.shape[1])

    def count(mask: jax.Array) -> jax.Array:
        over = 1 if by_row else None
        found = jnp.sum(mask, axis=over, keepdims=True, dtype=jnp.int32)
        return found if by_row else psum(found, axis)

    # The keep-th highest order, bit by bit from the top: at most 32 counts, and no sort. Where a
    # count is just right the lower bits do not matter, which ends the search early.
    def undecided(carry: Any) -> jax.Array:
        k, _, found = carry
        return (k < 32) & jnp.any(found != keep)

    def next_bit(carry: Any) -> Any:
        k, floor, found = carry
        tried = floor | (jnp.uint32(1) << (jnp.uint32(31) - k.astype(jnp.uint32)))
        at_least = count(order_bxB >= tried)
        enough = (at_least >= keep) & (found != keep)
        return k + 1, jnp.where(enough, tried, floor), jnp.where(enough, at_least, found)

    shape = (l_bxB.shape[0], 1) if by_row else (1, 1)
    start = (jnp.int32(0), jnp.zeros(shape, jnp.uint32), jnp.full(shape, -1, jnp.int32))
    _, threshold, found = lax.while_loop(undecided, next_bit, start)
    exact = found == keep
    above = (order_bxB > threshold) | (exact & (order_bxB == threshold))
    ties = (order_bxB == threshold) & ~positive_bxB & ~exact
    left = (keep - count(above)).astype(jnp.float32)
    share = left / jnp.maximum(count(ties), 1).astype(jnp.float32)
    return jnp.where(above, 1.0, jnp.where(ties, share, 0.0)).astype(jnp.float32)


def _ordered(x: jax.Array) -> jax.Array:
    """float32 as uint32 in the same order."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    negative = bits >> 31 == 1
    return jnp.where(negative, ~bits, bits | jnp.uint32(1 << 31))


def mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 that spreads every bit over all others (the murmur3 finaliser)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def pair_hash(seed: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
    """A well-mixed uint32 of (seed, i, j)."""
    row = mix(seed.astype(jnp.uint32) ^ mix(i + jnp.uint32(0x9E3779B9)))
    return mix(row + mix(j * jnp.uint32(0x9E3779B1) + jnp.uint32(0x7F4A7C15)))
