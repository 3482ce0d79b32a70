"""How far the gradients of different batches disagree, at the batch size at hand.

Let g be the gradient of the loss on one batch of B examples drawn at random, at fixed parameters.
It is made of what all batches share, its mean G, and of what differs from batch to batch:

    signal = |G|^2                noise = E |g - G|^2 = trace of the covariance of g

Of K batches with gradients g_1 ... g_K at the same parameters both are estimated without bias:

    signal = mean over pairs k != l of g_k . g_l        noise = sum |g_k - mean|^2 / (K - 1)

This is not McCandlish's gradient noise scale. That one takes a batch's gradient for a mean of
independent gradients of single examples, so that noise falls as 1 / B and one number predicts all
batch sizes. The examples of a contrastive batch are coupled, each is a negative of all others, so
no example has a gradient of its own, and G itself changes with B. Here the unit is the whole
batch: batches are independent of each other however their examples are coupled inside, and the
numbers hold for this B, this loss and these parameters. Where noise is far above signal, batches
point into unlike directions; that a larger batch would be of use is suggested, not shown.

The estimate of the signal may be negative: it is a sum of products that cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from study.rng import mix
from study.training.optimizer import global_norm

_OWN = 0x6E015E  # keeps its random negatives and dropout apart from those of training


class GradientNoise(NamedTuple):
    """Scalars float32, of the gradient before clipping, over all parameters that are trained."""

    signal: jax.Array
    noise: jax.Array

    def named(self) -> dict[str, float]:
        return {
            "train/gradient_signal": float(self.signal),
            "train/gradient_noise": float(self.noise),
        }


def gradient_noise(
    gradients: Callable[[Any, dict[str, jax.Array], jax.Array], Any],
    params: Any,
    batches: dict[str, jax.Array],
    key: jax.Array,
) -> GradientNoise:
    """`GradientNoise` at `params`, of as many batches as there are; one gradient is held at a time.

    Arguments:
      gradients: `(params, batch, key) -> gradients` of what is trained.
      batches: arrays `K x B x ...` of K independent batches.
      key: uint32 scalar.
    """
    count = len(batches["text"])

    def add(k: jax.Array, sums: Any) -> Any:
        total, squares = sums
        batch = {n: jax.lax.dynamic_index_in_dim(a, k, 0, False) for n, a in batches.items()}
        g = gradients(params, batch, mix(mix(key + jnp.uint32(_OWN)) + k.astype(jnp.uint32)))
        return jax.tree.map(jnp.add, total, g), squares + global_norm(g) ** 2

    first = {n: a[0] for n, a in batches.items()}
    like = jax.eval_shape(gradients, params, first, key)
    start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like), jnp.zeros(())
    total, squares = jax.lax.fori_loop(0, count, add, start)
    of_sum = global_norm(total) ** 2
    return GradientNoise(
        signal=(of_sum - squares) / (count * (count - 1)),
        noise=(squares - of_sum / count) / (count - 1),
    )
