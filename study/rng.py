"""Hashes of 32-bit numbers: choices as functions of what they concern, and of nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 that spreads every bit over all others (the murmur3 finaliser)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
