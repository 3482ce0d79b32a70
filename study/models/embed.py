"""The functions that embed batches: evaluations run them, and plans compile them."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from study.config.cell import Cell, Data, Model, Softmax
from study.config.vocabulary import Vocabulary
from study.models.sharding import batch_sharding, replicated
from study.models.two_towers import TwoTowers


def jit_towers(model: Model, data: Data, vocabulary: Vocabulary, mesh: Mesh) -> dict[str, Any]:
    """`image`, `text` and `features`, each `(params, batch) -> rows`, which evaluations run and
    `study plan` compiles.

    Parameters keep their shardings; the rows of a batch are spread over the mesh, and every device
    gets all rows of the result.
    """
    # Any loss will do: t and b do not enter an embedding, and an unused `b` is ignored.
    cell = Cell(model=model, data=data, loss=Softmax(), batch_size=2)
    # Without the rows' sharding XLA gathers activations instead of sharded parameters.
    towers = TwoTowers(cell, vocabulary, rows=batch_sharding(mesh) if mesh.size > 1 else None)

    def image(params: Any, x_BxHxWxC: jax.Array) -> Any:
        return towers.apply({"params": params}, x_BxHxWxC, None)[0]

    def text(params: Any, x_BxL: jax.Array) -> Any:
        return towers.apply({"params": params}, None, x_BxL)[1]

    encode: dict[str, Any] = {"image": image, "text": text}
    encode["features"] = functools.partial(features, towers)
    return {name: jax.jit(f, out_shardings=replicated(mesh)) for name, f in encode.items()}


def features(towers: TwoTowers, params: Any, image_BxHxWxC: jax.Array) -> jax.Array:
    """What the image tower hands to its projection `head`, or gives where it has none, `B x F`."""
    found: list[jax.Array] = []

    def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and not found:
            if context.module.path == ("img", "head"):
                found.append(args[0])
            elif context.module.path == ("img",):
                found.append(out)
        return out

    with nn.intercept_methods(keep):
        towers.apply({"params": params}, image_BxHxWxC, None)
    return found[0].astype(jnp.float32)
