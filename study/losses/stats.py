"""What a loss reports of its logits, gathered in the sweep that makes the gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Axis = str | tuple[str, ...] | None


class LogitStats(NamedTuple):
    """Mean, min and max of the logits of three sets of pairs, scalars in float32.

    pos: the positives. neg: all negatives met. kept: the negatives that count in the loss
    (equal to `neg` unless `Negatives` drops some). The right panels of the paper's Fig. 6.
    """

    pos_logit_mean: jax.Array
    pos_logit_min: jax.Array
    pos_logit_max: jax.Array
    neg_logit_mean: jax.Array
    neg_logit_min: jax.Array
    neg_logit_max: jax.Array
    kept_logit_mean: jax.Array
    kept_logit_min: jax.Array
    kept_logit_max: jax.Array


def positives(logits_b: jax.Array, axis: Axis) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, min and max over the positives of all shards."""
    return pmean(logits_b.mean(), axis), pmin(logits_b.min(), axis), pmax(logits_b.max(), axis)


def mean_of_negatives(
    zimg_bxD: jax.Array, ztxt_bxD: jax.Array, t: jax.Array, b: jax.Array | float, axis: Axis
) -> jax.Array:
    """The mean logit of all negatives, from the sums of the embeddings: no logit is formed."""
    f32 = jnp.float32
    total = psum(zimg_bxD.astype(f32).sum(0), axis) @ psum(ztxt_bxD.astype(f32).sum(0), axis)
    matched = psum(jnp.sum(zimg_bxD.astype(f32) * ztxt_bxD), axis)
    # Counted in float32: B * B overflows the 32-bit integers that devices have.
    batch = psum(jnp.asarray(len(zimg_bxD), f32), axis)
    return t * (total - matched) / (batch * (batch - 1)) + b


def devices(axis: Axis) -> int:
    """How many devices hold the batch."""
    return 1 if axis is None else jax.lax.axis_size(axis)


def here(axis: Axis) -> jax.Array | int:
    """The number of this device among them."""
    return 0 if axis is None else jax.lax.axis_index(axis)


def psum(x: jax.Array, axis: Axis) -> jax.Array:
    return x if axis is None else jax.lax.psum(x, axis)


def pmean(x: jax.Array, axis: Axis) -> jax.Array:
    return x if axis is None else jax.lax.pmean(x, axis)


def pmin(x: jax.Array, axis: Axis) -> jax.Array:
    return x if axis is None else jax.lax.pmin(x, axis)


def pmax(x: jax.Array, axis: Axis) -> jax.Array:
    return x if axis is None else jax.lax.pmax(x, axis)


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product with float32 sums, also of bfloat16 inputs."""
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
