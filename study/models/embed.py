"""The functions that embed batches: evaluations run them and `study plan` compiles them."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh

from study.config import Cell, Data, Model, Softmax
from study.config.model import Vocabulary
from study.models.sharding import batch_sharding, replicated
from study.models.two_towers import TwoTowers


def jit_towers(model: Model, data: Data, vocabulary: Vocabulary, mesh: Mesh) -> dict[str, Any]:
    """Jitted functions `(params, batch) -> rows`, by name.

    image: `BxHxWxC` to unit embeddings `BxE`. text: `BxL` to unit embeddings `BxE`. features:
    `BxHxWxC` to the input of the image tower's head, `BxF`, or its output if it has no head.

    Parameters keep their shardings, the rows of a batch are spread over the mesh, and the result
    is replicated.
    """
    # Any loss will do: t and b do not enter an embedding, and an unused `b` is ignored.
    cell = Cell(model=model, data=data, loss=Softmax(), batch_size=2)
    # Without the rows' sharding XLA gathers activations instead of sharded parameters.
    towers = TwoTowers(cell, vocabulary, rows=batch_sharding(mesh) if mesh.size > 1 else None)

    def image(params: Any, x_BxHxWxC: jax.Array) -> Any:
        return towers.apply({"params": params}, x_BxHxWxC, None)[0]

    def text(params: Any, x_BxL: jax.Array) -> Any:
        return towers.apply({"params": params}, None, x_BxL)[1]

    def features(params: Any, x_BxHxWxC: jax.Array) -> Any:
        return towers.apply({"params": params}, x_BxHxWxC, method=TwoTowers.image_features)

    replicate = replicated(mesh)
    return {f.__name__: jax.jit(f, out_shardings=replicate) for f in (image, text, features)}
