"""Exact micro-batching: the towers see a batch in parts, the loss sees all of its embeddings.

The gradient is the whole batch's. Public trainers that accumulate gradients of the losses of
parts train another objective, with fewer negatives, or add the gradient of t and b once per part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def in_microbatches(
    encode: Callable[[Any], Any], batch: Any, microbatch: int, mesh: Mesh | None
) -> Any:
    """`encode(batch)` with the activations of one microbatch per device in memory at a time.

    Arguments:
      encode: maps rows to rows, each row independently; it runs again in the backward pass.
      batch: pytree of arrays whose leading axis is spread evenly over all axes of `mesh`.
      microbatch: examples per pass and device. The last microbatch is padded with zero rows,
        whose results are dropped.

    Returns:
      The pytree that `encode` returns for the whole batch, its rows in the batch's order.
    """
    devices = 1 if mesh is None else mesh.size
    rows = len(jax.tree.leaves(batch)[0]) // devices
    size = min(microbatch, rows)
    count = -(-rows // size)

    def constrain(x: jax.Array) -> jax.Array:
        """Each microbatch holds some rows of every device, so that no row has to move."""
        if mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(None, mesh.axis_names)))

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(devices, rows, *x.shape[1:])
        x = jnp.pad(x, ((0, 0), (0, count * size - rows), *[(0, 0)] * (x.ndim - 2)))
        x = x.reshape(devices, count, size, *x.shape[2:]).swapaxes(0, 1)
        return constrain(x.reshape(count, devices * size, *x.shape[3:]))

    def join(z: jax.Array) -> jax.Array:
        z = constrain(z).reshape(count, devices, size, *z.shape[2:]).swapaxes(0, 1)
        z = z.reshape(devices, count * size, *z.shape[3:])[:, :rows]
        return z.reshape(devices * rows, *z.shape[2:])

    parts = jax.tree.map(split, batch)
    return jax.tree.map(join, jax.lax.map(jax.checkpoint(encode), parts))
