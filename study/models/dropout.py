"""Dropout that does not depend on how a batch is split.

Whether a value is dropped is a hash of its example's key, its layer and its position, so a
microbatch, a device or a recomputed block drops what the whole batch would have dropped.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from study.rng import mix


def example_keys(key: jax.Array, index_B: jax.Array) -> jax.Array:
    """uint32 keys `B` of the examples at `index_B` of the global batch, in the step of `key`."""
    return mix(key.astype(jnp.uint32) + mix(index_B.astype(jnp.uint32) + jnp.uint32(0x2545F491)))


def dropout(
    x_BxLxW: jax.Array, rate: float, keys_B: jax.Array | None, site: jax.Array | int
) -> jax.Array:
    """Zero values with probability `rate` and scale the others up.

    Arguments:
      keys_B: uint32, one for each example; None drops nothing.
      site: the index of this dropout in its tower.
    """
    if keys_B is None or not rate:
        return x_BxLxW
    _, length, width = x_BxLxW.shape
    position_LxW = jnp.arange(length * width, dtype=jnp.uint32).reshape(length, width)
    site_key_B = mix(keys_B + mix(jnp.asarray(site, jnp.uint32) + jnp.uint32(0x9E3779B9)))
    bits_BxLxW = mix(mix(position_LxW) + site_key_B[:, None, None])
    return jnp.where(bits_BxLxW >= jnp.uint32(rate * 2**32), x_BxLxW / (1 - rate), 0)
