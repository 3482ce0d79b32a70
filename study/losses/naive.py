"""The paper's formulas with all B x B logits, for benchmarks to compare with."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sigmoid(zimg_BxD: jax.Array, ztxt_BxD: jax.Array, t: jax.Array, b: jax.Array) -> jax.Array:
    """Paper Algorithm 1: the sum over all pairs over the batch size (not over its square)."""
    logits_BxB = t * zimg_BxD @ ztxt_BxD.T + b
    labels_BxB = 2 * jnp.eye(len(zimg_BxD)) - 1
    return -jnp.sum(jax.nn.log_sigmoid(labels_BxB * logits_BxB)) / len(zimg_BxD)


def hard_sigmoid(
    zimg_BxD: jax.Array, ztxt_BxD: jax.Array, t: jax.Array, b: jax.Array, *, per_positive: int
) -> jax.Array:
    """`sigmoid` over the positives and the `per_positive * B` highest logits of negatives.

    The k-th highest comes from `top_k`. All that equal it count, where `sigmoid_loss` shares the
    places that are left among them.
    """
    batch = len(zimg_BxD)
    logits_BxB = t * zimg_BxD @ ztxt_BxD.T + b
    own_BxB = jnp.eye(batch, dtype=bool)
    ranked_BxB = jnp.where(own_BxB, -jnp.inf, jax.lax.stop_gradient(logits_BxB))
    kth = jax.lax.top_k(ranked_BxB.ravel(), per_positive * batch)[0][-1]
    kept_BxB = own_BxB | (ranked_BxB >= kth)
    log_p_BxB = jax.nn.log_sigmoid(jnp.where(own_BxB, logits_BxB, -logits_BxB))
    return -jnp.sum(jnp.where(kept_BxB, log_p_BxB, 0.0)) / batch


def softmax(zimg_BxD: jax.Array, ztxt_BxD: jax.Array, t: jax.Array) -> jax.Array:
    """Paper Eq. 1: the mean of image-to-text and text-to-image cross-entropy."""
    logits_BxB = t * zimg_BxD @ ztxt_BxD.T
    rows = jnp.diagonal(jax.nn.log_softmax(logits_BxB, axis=1))
    columns = jnp.diagonal(jax.nn.log_softmax(logits_BxB, axis=0))
    return -0.5 * (rows.mean() + columns.mean())
