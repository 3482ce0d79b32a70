"""Optimizers as optax chains, with the conventions of the paper's code base.

The chain: global-norm clip, core transform, learning rate, decoupled decay on kernels only,
schedule. So the 0..1 schedule scales the decay, and the learning rate does not. Frozen parameters
are outside the chain: they have no optimizer state and do not count in the clipped norm.

Rates, decays and schedules are arguments of the update, not constants: cells that differ in
nothing else share a compiled program.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from study.config import Adafactor, Adam, Cell, Lion, Muon, ParamGroup

# The optimizer's parameter group of each top-level name of the parameter tree.
GROUPS = {
    **{"img": "image", "txt": "text"},
    **{"t": "loss_scalars", "b": "loss_scalars", "r": "loss_scalars"},
}

# Below this name the arrays of all blocks are stacked along a first axis (`study.models`).
STACKED = "encoderblock"

SMALL = 4096  # numbers in a leaf below which a copy of it costs next to nothing


class Rates(NamedTuple):
    """How far one step moves the parameters; float32 scalars.

    Attributes:
      peak: the cell's learning rate.
      lr, decay: learning rate and weight decay by parameter group (`GROUPS`).
    """

    peak: Any
    lr: dict[str, Any]
    decay: dict[str, Any]


def read_rates(cell: Cell) -> Rates:
    """The rates of a cell; `study.config.schedule` scales them."""
    o, names = cell.optimizer, sorted(set(GROUPS.values()))
    groups: dict[str, ParamGroup] = {name: getattr(o, name) for name in names}
    return Rates(
        peak=np.float32(o.learning_rate),
        lr={k: np.float32(o.learning_rate * g.lr_mult) for k, g in groups.items()},
        decay={k: np.float32(cell.weight_decay * g.wd_mult) for k, g in groups.items()},
    )


def optimizer(cell: Cell) -> optax.GradientTransformationExtraArgs:
    """The cell's optimizer; its update is to be added to the parameters.

    `update` takes `rates` (`Rates`) and `factor` (of the schedule, a scalar) as well.
    """
    o = cell.optimizer

    def scale(
        updates: Any, state: Any, params: Any = None, *, rates: Rates, factor: Any, **_: Any
    ) -> Any:
        """Decay kernels; not biases, norms, embeddings, t or b."""

        def one(path: Any, u: jax.Array, p: jax.Array) -> jax.Array:
            group = group_name(path[0].key)
            u = u * rates.lr[group]
            if path[-1].key == "kernel":
                u += rates.decay[group] * p
            return u * -factor

        return jax.tree_util.tree_map_with_path(one, updates, params), state

    trained = optax.chain(
        optax.identity() if o.clip_norm is None else clip_by_global_norm(o.clip_norm),
        _core(cell),
        optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), scale),
    )
    if not any(getattr(o, name).frozen for name in GROUPS.values()):
        return trained
    return optax.partition(
        {False: trained, True: optax.set_to_zero()},
        lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: getattr(o, group_name(path[0].key)).frozen, params
        ),
    )


def drop_frozen(cell: Cell, tree: Any) -> Any:
    """`tree` (parameters, gradients) without its frozen top-level names.

    Gradients that nothing reads are not computed.
    """
    o = cell.optimizer
    return {k: leaf for k, leaf in tree.items() if not getattr(o, group_name(k)).frozen}


def group_name(name: str) -> str:
    """The parameter group of a top-level name of the parameter tree.

    Raises:
      ValueError: the name is not img, txt, t or b.
    """
    if name not in GROUPS:
        raise ValueError(f"parameters {name!r} are in no group; known: {', '.join(GROUPS)}")
    return GROUPS[name]


def _core(cell: Cell) -> optax.GradientTransformation:
    o, b1, b2 = cell.optimizer, cell.b1, cell.b2
    match o:
        case Adam():
            return optax.scale_by_adam(b1=b1, b2=b2, eps=o.eps)
        case Lion():
            return optax.scale_by_lion(b1=b1, b2=b2)
        case Adafactor():
            return scale_by_adafactor(o, b1=b1, b2=b2)
        case Muon():
            return scale_by_muon(o, b1=b1, b2=b2)


def scale_by_muon(o: Muon, *, b1: float, b2: float) -> optax.GradientTransformation:
    """Muon for kernels, layer by layer, and Adam for all else, with updates of like size.

    An orthogonalized m x n update has a root mean square of 1 / sqrt(max(m, n)).
    """

    def matrix_axes(path: Any, x: jax.Array) -> contrib.MuonDimensionNumbers:
        """Which axes of a kernel are inputs and which are outputs; the first of a stack neither."""
        axes = tuple(range(1 if _is_stacked(path) else 0, x.ndim))
        # Dense kernels are in x out, convolutions height x width x in x out. The attention's have
        # a second axis of heads, of its outputs in query, key and value and of its inputs in out.
        inputs = 1 if len(axes) == 3 and path[-2].key != "out" else len(axes) - 1
        return contrib.MuonDimensionNumbers(axes[:inputs], axes[inputs:])

    def all_axes(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(matrix_axes, params)

    def like_adam(path: Any, u: jax.Array) -> jax.Array:
        dims = matrix_axes(path, u)
        longest = max(math.prod(u.shape[a] for a in axes) for axes in dims)
        return u * (o.update_rms * math.sqrt(longest))

    muon = optax.chain(
        contrib.scale_by_muon(beta=b1, ns_steps=o.iterations, weight_dimension_numbers=all_axes),
        optax.stateless(lambda u, _: jax.tree_util.tree_map_with_path(like_adam, u)),
    )
    return optax.partition(
        {True: muon, False: optax.scale_by_adam(b1=o.adam_b1, b2=b2, eps=o.eps)},
        lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key == "kernel", params
        ),
    )


def scale_by_adafactor(o: Adafactor, *, b1: float, b2: float) -> optax.GradientTransformation:
    """Gradients over factored second moments, then an undebiased average stored in bfloat16.

    Each layer is on its own, as in big_vision, whose blocks are not stacked: second moments are
    never factored over layers, and `clip_block_rms` bounds each layer's array.
    """
    rms = optax.scale_by_factored_rms(
        min_dim_size_to_factor=o.min_dim_size_to_factor,
        epsilon=o.eps,
        # At step 0 this is 0: the second moment starts as the first squared gradient.
        decay_rate_fn=lambda step, power: jnp.minimum(b2, 1.0 - (step + 1.0) ** -power),
        decay_rate=0.8,
    )
    clip, momentum = optax.identity(), optax.identity()
    if o.clip_block_rms is not None:
        clip = _clip_by_rms(o.clip_block_rms)
    if b1:
        momentum = optax.ema(b1, debias=False, accumulator_dtype=jnp.bfloat16)
    return optax.chain(_layer_by_layer(rms, o.min_dim_size_to_factor), clip, momentum)


def _layer_by_layer(
    rms: optax.GradientTransformation, min_dim_size_to_factor: int
) -> optax.GradientTransformation:
    """`rms`, vmapped over layers if it would factor a stacked array over its layers.

    optax factors the two largest axes. With 32 blocks or more, the layers are one of them for
    scales and biases, which a single block does not factor. All else keeps its usual state.
    """

    def depth(path: Any, x: jax.Array) -> int:
        """The number of layers to vmap over, or 0 to take the array whole."""
        if x.ndim < 2 or not _is_stacked(path):
            return 0
        second = sorted(x.shape)[-2]
        return x.shape[0] if x.shape[0] >= second >= min_dim_size_to_factor else 0

    def transform(tree: Any) -> optax.GradientTransformation:
        depths = jax.tree_util.tree_map_with_path(depth, tree)
        distinct = set(jax.tree.leaves(depths))
        if distinct <= {0}:
            return rms
        per_layer = optax.GradientTransformation(jax.vmap(rms.init), jax.vmap(rms.update))
        # Towers may differ in depth, and one `vmap` takes one depth.
        return optax.partition({n: per_layer if n else rms for n in distinct}, depths)

    return optax.GradientTransformation(
        lambda params: transform(params).init(params),
        lambda updates, state, params=None: transform(updates).update(updates, state, params),
    )


def _clip_by_rms(limit: float) -> optax.GradientTransformation:
    """Scale the update of each array (of each layer, in a stack) to an RMS of at most `limit`."""
    block = optax.clip_by_block_rms(limit)

    def clip(path: Any, u: jax.Array) -> jax.Array:
        one = lambda x: block.update(x, optax.EmptyState())[0]
        return jax.vmap(one)(u) if _is_stacked(path) else one(u)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(clip, updates))


def _is_stacked(path: Any) -> bool:
    return any(getattr(key, "key", None) == STACKED for key in path)


def global_norm(tree: optax.Params) -> jax.Array:
    """Root of the sum of squares of all leaves.

    Dot products, because on CPU a sum to a scalar is one long chain of additions that cost more
    than the rest of a step at batch size 16. Over all axes as they are, because `vdot` flattens
    an array and so would gather one that is sharded. Small leaves, which are most, are joined: a
    product takes as long to compile for a bias as for a matrix.
    """
    leaves = jax.tree.leaves(tree)
    small = [leaf.ravel() for leaf in leaves if leaf.size < SMALL]
    joined = [jnp.concatenate(small)] if small else []

    def square(x: jax.Array) -> jax.Array:
        axes = tuple(range(x.ndim))
        return jax.lax.dot_general(x, x, ((axes, axes), ((), ())))

    parts = joined + [leaf for leaf in leaves if leaf.size >= SMALL]
    return jnp.sqrt(jnp.sum(jnp.stack([square(x) for x in parts])))


def trained_norm(cell: Cell, tree: Any) -> jax.Array:
    """`global_norm` without frozen parameters."""
    return global_norm(drop_frozen(cell, tree))


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scale updates down to a global norm of at most `limit`."""

    def clip(updates: optax.Updates, _: optax.Params | None) -> optax.Updates:
        factor = jnp.minimum(1.0, limit / jnp.maximum(global_norm(updates), 1e-30))
        return jax.tree.map(lambda u: u * factor, updates)

    return optax.stateless(clip)
