"""Optimizers and schedules as optax chains, with the conventions of the paper's code base.

The chain is: global-norm clip, core transform, learning rate, decoupled decay on kernels only,
schedule. The decay is thus scaled by the 0..1 schedule but not by the learning rate.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from study.cell import Adam, Cell, Lion
from study.durations import steps_of


def schedule(cell: Cell) -> optax.Schedule:
    """The 0..1 factor at each step: linear warm-up times decay over the steps after it."""
    warmup = steps_of(cell.optimizer, "warmup", batch_size=cell.batch_size, total_steps=cell.steps)
    after = max(1, cell.steps - warmup)
    match cell.optimizer.schedule:
        case "cosine":
            decay = optax.cosine_decay_schedule(1.0, after)
        case "linear":
            decay = optax.linear_schedule(1.0, 0.0, after)
        case "constant":
            decay = optax.constant_schedule(1.0)
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), decay], [warmup])


def optimizer(cell: Cell) -> optax.GradientTransformation:
    """The cell's optimizer; its update is to be added to the parameters."""
    o = cell.optimizer
    match o:
        case Adam():
            core = optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=o.eps)
        case Lion():
            core = optax.scale_by_lion(b1=o.b1, b2=o.b2)
    clip = optax.identity() if o.clip_norm is None else clip_by_global_norm(o.clip_norm)
    return optax.chain(
        clip,
        core,
        optax.scale(o.learning_rate),
        optax.add_decayed_weights(o.weight_decay, mask=kernels),
        optax.scale_by_schedule(schedule(cell)),
        optax.scale(-1.0),
    )


def global_norm(tree: optax.Params) -> jax.Array:
    """Root of the sum of squares of all leaves.

    As dot products: a plain sum to a scalar is one long chain of additions on a CPU, which cost
    more than the rest of a step at batch size 16.
    """
    squares = [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scales updates down to a global norm of at most `limit`."""

    def clip(updates: optax.Updates, _: optax.Params | None) -> optax.Updates:
        factor = jnp.minimum(1.0, limit / jnp.maximum(global_norm(updates), 1e-30))
        return jax.tree.map(lambda u: u * factor, updates)

    return optax.stateless(clip)


def kernels(params: optax.Params) -> optax.Params:
    """True for what is decayed: kernels, not biases, norms, embeddings, t or b."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )
