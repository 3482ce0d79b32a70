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

from study.config.budget import to_steps
from study.config.cell import Adafactor, Adam, Cell, Lion, Optimizer, Part

# Which part of the optimizer speaks for each top-level name of the parameter tree.
PARTS = {"img": "image", "txt": "text", "t": "scalars", "b": "scalars"}

# Below this name the arrays of all blocks are stacked along a first axis (`study.towers`).
STACKED = "encoderblock"


def schedule(cell: Cell) -> optax.Schedule:
    """The 0..1 factor at each step: linear warm-up times decay over the steps after it.

    A cooldown multiplies it by a line that reaches zero at the end.
    """
    total = cell.steps
    warmup, timescale, cooldown = (
        to_steps(cell.optimizer, name, batch_size=cell.batch_size, total_steps=total)
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


def drop_frozen(cell: Cell, tree: Any) -> Any:
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
    """Gradients over factored second moments, then a plain average stored in bfloat16.

    Each block of a tower counts by itself, as in the code base, whose blocks are not stacked: its
    second moments are never factored over layers, and `clip_block_rms` bounds each layer's array.
    """
    rms = optax.scale_by_factored_rms(
        min_dim_size_to_factor=o.factor_from,
        epsilon=o.eps,
        # At step 0 this is 0: the second moment starts as the first squared gradient.
        decay_rate_fn=lambda step, power: jnp.minimum(o.b2, 1.0 - (step + 1.0) ** -power),
        decay_rate=0.8,
    )
    bound = optax.identity() if o.clip_block_rms is None else _clip_by_rms(o.clip_block_rms)
    momentum = optax.ema(o.b1, debias=False, accumulator_dtype=jnp.bfloat16)
    return optax.chain(
        _layer_by_layer(rms, o.factor_from), bound, momentum if o.b1 else optax.identity()
    )


def _layer_by_layer(
    rms: optax.GradientTransformation, factor_from: int
) -> optax.GradientTransformation:
    """`rms`, but applied to each layer where it would factor a stacked array over its layers.

    optax factors the two largest axes. From 32 blocks on the layers are one of them in the scales
    and biases, which a block alone does not factor. All else keeps the state that it had.
    """

    def depth(path: Any, x: jax.Array) -> int:
        """The number of layers to go through one by one, or 0 to take the array whole."""
        if x.ndim < 2 or not _is_stacked(path):
            return 0
        second = sorted(x.shape)[-2]
        return x.shape[0] if x.shape[0] >= second >= factor_from else 0

    def transform(tree: Any) -> optax.GradientTransformation:
        depths = jax.tree_util.tree_map_with_path(depth, tree)
        found = set(jax.tree.leaves(depths))
        if found <= {0}:
            return rms
        one_by_one = optax.GradientTransformation(jax.vmap(rms.init), jax.vmap(rms.update))
        # Towers may differ in depth, and one `vmap` takes one depth.
        return optax.partition({n: one_by_one if n else rms for n in found}, depths)

    return optax.GradientTransformation(
        lambda params: transform(params).init(params),
        lambda updates, state, params=None: transform(updates).update(updates, state, params),
    )


def _clip_by_rms(limit: float) -> optax.GradientTransformation:
    """Scales the update of each array, in stacks of each layer, to an RMS of at most `limit`."""
    clip = optax.clip_by_block_rms(limit)

    def clipped(path: Any, u: jax.Array) -> jax.Array:
        one = lambda x: clip.update(x, optax.EmptyState())[0]
        return jax.vmap(one)(u) if _is_stacked(path) else one(u)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(clipped, updates))


def _is_stacked(path: Any) -> bool:
    return any(getattr(key, "key", None) == STACKED for key in path)


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
