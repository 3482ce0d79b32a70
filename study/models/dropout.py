"""Dropout that splitting a batch does not change.

Whether a value is dropped is a hash of its example's key, its layer and its place, so a
microbatch, a device or a recomputed block drops what the whole batch would have dropped.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from study.rng import mix


def example_keys(key: jax.Array, index_B: jax.Array) -> jax.Array:
    """Keys uint32 `B` of the examples at `index_B` of the global batch, in the step of `key`."""
    return mix(key.astype(jnp.uint32) + mix(index_B.astype(jnp.uint32) + jnp.uint32(0x2545F491)))


def dropout(
    x_BxLxW: jax.Array, rate: float, keys_B: jax.Array | None, site: jax.Array | int
) -> jax.Array:
    """Zeroes values with probability `rate` and scales the others up; all kept without keys.

    Arguments:
      keys_B: uint32, one for each example, or None.
      site: which dropout of the tower this is.
    """
    if keys_B is None or not rate:
        return x_BxLxW
    _, length, width = x_BxLxW.shape
    place_LxW = jnp.arange(length * width, dtype=jnp.uint32).reshape(length, width)
    here_B = mix(keys_B + mix(jnp.asarray(site, jnp.uint32) + jnp.uint32(0x9E3779B9)))
    bits_BxLxW = mix(mix(place_LxW) + here_B[:, None, None])
    return jnp.where(bits_BxLxW >= jnp.uint32(rate * 2**32), x_BxLxW / (1 - rate), 0)
