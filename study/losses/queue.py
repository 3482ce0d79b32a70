"""Negatives kept from earlier steps: embeddings without gradient, as MoCo keeps them.

Every image of the batch also meets the stored texts, and every text the stored images. A batch of B
examples with a queue of Q then has B * (B - 1) + 2 * B * Q negatives, for the activations of B
examples and Q further rows of embeddings. They are of earlier parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from study.losses.tiled import Axes


class Queue(NamedTuple):
    """The embeddings of the last S steps. Each device keeps those of its own rows of the batch.

    Attributes:
      zimg_SxBxD, ztxt_SxBxD: unit-norm embeddings in the model's type.
      caption_SxBx2: `study.losses.captions.caption_ids` of the texts.
      filled: how many of the S steps are stored, int32.
    """

    zimg_SxBxD: Any
    ztxt_SxBxD: Any
    caption_SxBx2: Any
    filled: Any

    @classmethod
    def empty(cls, steps: int, batch_size: int, dim: int, dtype: Any) -> Queue:
        z_SxBxD = jnp.zeros((steps, batch_size, dim), dtype)
        captions = jnp.zeros((steps, batch_size, 2), jnp.uint32)
        return cls(z_SxBxD, z_SxBxD, captions, jnp.zeros((), jnp.int32))

    @staticmethod
    def specs(axes: Axes) -> Queue:
        """How a mesh with these axes holds a queue."""
        rows = P(None, axes)
        return Queue(rows, rows, rows, P())

    def push(
        self, step: jax.Array, zimg_BxD: jax.Array, ztxt_BxD: jax.Array, caption_Bx2: jax.Array
    ) -> Queue:
        """The queue with a batch in place of the oldest one; `step` counts from 0."""
        size = len(self.zimg_SxBxD)

        def put(stored: jax.Array, new: jax.Array) -> jax.Array:
            new = lax.stop_gradient(new).astype(stored.dtype)
            return lax.dynamic_update_index_in_dim(stored, new, step % size, 0)

        return Queue(
            put(self.zimg_SxBxD, zimg_BxD),
            put(self.ztxt_SxBxD, ztxt_BxD),
            put(self.caption_SxBx2, caption_Bx2),
            jnp.minimum(self.filled + 1, size),
        )


class Stored(NamedTuple):
    """One side of a device's part of a queue, as rows.

    Attributes:
      caption_mx2: None if captions are not compared.
      usable_m: which rows are stored already; None if all are.
    """

    z_mxD: jax.Array
    caption_mx2: Any
    usable_m: Any


def both_sides(queue: Queue) -> tuple[Stored, Stored]:
    """The stored images and the stored texts of this device."""
    steps, rows, _ = queue.zimg_SxBxD.shape
    usable_m = jnp.repeat(jnp.arange(steps) < queue.filled, rows)
    captions = queue.caption_SxBx2.reshape(-1, 2)
    images, texts = (
        Stored(z_SxBxD.reshape(steps * rows, -1), captions, usable_m)
        for z_SxBxD in (queue.zimg_SxBxD, queue.ztxt_SxBxD)
    )
    return images, texts
