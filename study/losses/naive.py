"""The paper's formulas with all B x B logits, for benchmarks to compare with."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sigmoid(zimg_BxD: jax.Array, ztxt_BxD: jax.Array, t: jax.Array, b: jax.Array) -> jax.Array:
    """Paper Algorithm 1: the sum over all pairs over the batch size (not over its square)."""
    logits_BxB = t * zimg_BxD @ ztxt_BxD.T + b
    labels_BxB = 2 * jnp.eye(len(zimg_BxD)) - 1
    return -jnp.sum(jax.nn.log_sigmoid(labels_BxB * logits_BxB)) / len(zimg_BxD)


def softmax(zimg_BxD: jax.Array, ztxt_BxD: jax.Array, t: jax.Array) -> jax.Array:
    """Paper Eq. 1: the mean of image-to-text and text-to-image cross-entropy."""
    logits_BxB = t * zimg_BxD @ ztxt_BxD.T
    rows = jnp.diagonal(jax.nn.log_softmax(logits_BxB, axis=1))
    columns = jnp.diagonal(jax.nn.log_softmax(logits_BxB, axis=0))
    return -0.5 * (rows.mean() + columns.mean())
