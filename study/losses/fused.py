"""A loss whose forward sweep already holds its gradients.

Both losses are sums over pairs whose derivative is known as soon as the logits are, so the sweep
returns loss, statistics and gradients together, and the backward pass only scales. Nothing of
size B x B lives between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from study.losses.stats import LogitStats

# (zimg_bxD, ztxt_bxD, *scalars, axis) -> loss, statistics, gradients of all float arguments
Sweep = Callable[..., tuple[jax.Array, LogitStats, tuple[jax.Array, ...]]]


def with_gradients(sweep: Sweep, mesh: Mesh | None) -> Callable[..., tuple[jax.Array, LogitStats]]:
    """`sweep` as a differentiable function, run under `shard_map` when there is a mesh.

    On a mesh every device calls `sweep` on its own rows, with `axis` the name of the mesh's
    axes; the loss and the scalars' gradients it returns are then already summed over devices.
    Integer scalars (a key) come last and have no gradient; nor have the statistics.
    """

    def run(zimg: jax.Array, ztxt: jax.Array, *scalars: jax.Array) -> Any:
        if mesh is None or mesh.size == 1:
            return sweep(zimg, ztxt, *scalars, axis=None)
        axis = mesh.axis_names if len(mesh.axis_names) > 1 else mesh.axis_names[0]
        rows, whole = P(axis), P()
        learned = sum(jnp.issubdtype(s.dtype, jnp.floating) for s in scalars)
        return jax.shard_map(
            lambda *args: sweep(*args, axis=axis),
            mesh=mesh,
            in_specs=(rows, rows, *[whole] * len(scalars)),
            out_specs=(whole, whole, (rows, rows, *[whole] * learned)),
            check_vma=False,
        )(zimg, ztxt, *scalars)

    @jax.custom_vjp
    def loss(zimg: jax.Array, ztxt: jax.Array, *scalars: jax.Array) -> Any:
        value, stats, _ = run(zimg, ztxt, *scalars)
        return value, stats

    def forward(*args: jax.Array) -> Any:
        value, stats, grads = run(*args)
        keys = [None] * (len(args) - len(grads))
        cast = [g.astype(a.dtype) for g, a in zip(grads, args, strict=False)]
        return (value, stats), (*cast, *keys)

    def backward(grads: Any, cotangent: Any) -> tuple[jax.Array | None, ...]:
        scale, _ = cotangent
        return tuple(None if g is None else (scale * g).astype(g.dtype) for g in grads)

    loss.defvjp(forward, backward)
    return loss
