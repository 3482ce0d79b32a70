"""Optimizers and schedules as optax chains, with the conventions of the paper's code base.

The chain is: global-norm clip, core transform, learning rate, decoupled decay on kernels only,
schedule. The decay is thus scaled by the 0..1 schedule but not by the learning rate. A frozen
part stands outside the chain: it has no optimizer state and does not count in the clipped norm.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from study.cell import Adafactor, Adam, Cell, Lion, Optimizer, Part
from study.durations import steps_of

# Which part of the optimizer speaks for each top-level name of the parameter tree.
PARTS = {"img": "image", "txt": "text", "t": "scalars", "b": "scalars"}


def schedule(cell: Cell) -> optax.Schedule:
    """The 0..1 factor at each step: linear warm-up times decay over the steps after it.

    A cooldown multiplies it by a line that reaches zero at the end.
    """
    total = cell.steps
    warmup, timescale, cooldown = (
        steps_of(cell.optimizer, name, batch_size=cell.batch_size, total_steps=total)
        for name in ("warmup", "timescale", "cooldown")
    )
    after = max(1, total - warmup)
    match cell.optimizer.schedule:
        case "cosine":
            decay = optax.cosine_decay_schedule(1.0, after)
        case "linear":
            decay = optax.linear_schedule(1.0, 0.0, after)
        case "rsqrt":
            decay = lambda step: jax.lax.rsqrt(1.0 + jnp.maximum(step, 0) / timescale)
        case "constant":
            decay = optax.constant_schedule(1.0)
    if warmup:
        decay = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), decay], [warmup])
    if not cooldown:
        return decay
    return lambda step: decay(step) * jnp.clip((total - step) / cooldown, 0.0, 1.0)


def optimizer(cell: Cell) -> optax.GradientTransformation:
    """The cell's optimizer; its update is to be added to the parameters."""
    o = cell.optimizer
    clip = optax.identity() if o.clip_norm is None else clip_by_global_norm(o.clip_norm)
    trained = optax.chain(
        clip,
        _core(o),
        optax.stateless(lambda updates, _: _each(lambda u, part: u * _rate(o, part), updates, o)),
        optax.stateless(lambda updates, params: _decayed(updates, params, o)),
        optax.scale_by_schedule(schedule(cell)),
        optax.scale(-1.0),
    )
    if not any(getattr(o, name).frozen for name in PARTS.values()):
        return trained
    return optax.partition(
        {False: trained, True: optax.set_to_zero()},
        lambda params: _each(lambda _, part: part.frozen, params, o),
    )


def without_frozen(cell: Cell, tree: Any) -> Any:
    """`tree` (parameters, gradients) without the top-level parts that are frozen.

    Norms of it leave the frozen out, and gradients that nothing reads are not computed.
    """
    return {name: leaf for name, leaf in tree.items() if not part(cell.optimizer, name).frozen}


def part(o: Optimizer, name: str) -> Part:
    """The part of the optimizer that speaks for a top-level name of the parameter tree.

    Raises:
      ValueError: a name that is none of the two towers', t or b.
    """
    if name not in PARTS:
        raise ValueError(f"parameters {name!r} belong to no part; known: {', '.join(PARTS)}")
    return getattr(o, PARTS[name])


def _core(o: Optimizer) -> optax.GradientTransformation:
    match o:
        case Adam():
            return optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=o.eps)
        case Lion():
            return optax.scale_by_lion(b1=o.b1, b2=o.b2)
        case Adafactor():
            return scale_by_adafactor(o)


def scale_by_adafactor(o: Adafactor) -> optax.GradientTransformation:
    """Gradients over factored second moments, then a plain average stored in bfloat16."""
    rms = optax.scale_by_factored_rms(
        min_dim_size_to_factor=o.factor_from,
        epsilon=o.eps,
        # At step 0 this is 0: the second moment starts as the first squared gradient.
        decay_rate_fn=lambda step, power: jnp.minimum(o.b2, 1.0 - (step + 1.0) ** -power),
        decay_rate=0.8,
    )
    bound = optax.clip_by_block_rms(o.clip_block_rms) if o.clip_block_rms else optax.identity()
    momentum = optax.ema(o.b1, debias=False, accumulator_dtype=jnp.bfloat16)
    return optax.chain(rms, bound, momentum if o.b1 else optax.identity())


def global_norm(tree: optax.Params) -> jax.Array:
    """Root of the sum of squares of all leaves.

    As dot products: a plain sum to a scalar is one long chain of additions on a CPU, which cost
    more than the rest of a step at batch size 16. Over all axes at once: flattened by `vdot`, an
    array that is cut over devices would be gathered.
    """
    squares = [jnp.tensordot(leaf, leaf, axes=leaf.ndim) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scales updates down to a global norm of at most `limit`."""

    def clip(updates: optax.Updates, _: optax.Params | None) -> optax.Updates:
        factor = jnp.minimum(1.0, limit / jnp.maximum(global_norm(updates), 1e-30))
        return jax.tree.map(lambda u: u * factor, updates)

    return optax.stateless(clip)


def _rate(o: Optimizer, part: Part) -> float:
    return o.learning_rate * part.rate_times


def _decayed(updates: Any, params: Any, o: Optimizer) -> Any:
    """Updates plus weight decay: kernels only, not biases, norms, embeddings, t or b."""

    def decayed(path: Any, u: jax.Array, p: jax.Array) -> jax.Array:
        if path[-1].key != "kernel":
            return u
        return u + o.weight_decay * part(o, path[0].key).decay_times * p

    return jax.tree_util.tree_map_with_path(decayed, updates, params)


def _each(f: Any, tree: Any, o: Optimizer) -> Any:
    """`f(leaf, part)` of every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, x: f(x, part(o, path[0].key)), tree)
