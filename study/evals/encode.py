"""Embeddings of many images or texts, in padded batches of one compiled size, over all devices.

The rows of a batch are spread over the devices of all processes, each of which reads its own; rows
of padding are dropped. Parameters stay where training has them, whole or sharded. So a number
depends on neither the batch size nor the devices, except for the rounding of a sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from study.cell import CachedImage, Cell, Data, Model, Softmax
from study.data.sources import Source
from study.sharding import by_row, mesh_over, own_rows, replicated
from study.towers.two_towers import TwoTowers
from study.vocabulary import Vocabulary

SIZE = 2048


class Encoder:
    """Unit embeddings of images and texts, and features of images.

    Every process of the mesh calls every method, and gets all rows. `params` are arrays on the
    mesh, replicated or sharded as `study.sharding.laid_out` has them.

    Arguments:
      data: only its text length matters.
      size: examples per batch over all devices, rounded up to a multiple of their number.
      mesh: None is one over all devices.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        vocabulary: Vocabulary,
        *,
        size: int = SIZE,
        mesh: Mesh | None = None,
    ):
        mesh = mesh_over(jax.devices()) if mesh is None else mesh
        self._cached = isinstance(model.image, CachedImage)
        self._size = math.ceil(size / mesh.size) * mesh.size
        self._replicated, self._rows = replicated(mesh), by_row(mesh)
        self._own_R = own_rows(mesh, self._size)
        towers = jit_towers(model, data, vocabulary, mesh)
        self._image, self._text = towers["image"], towers["text"]
        self._features = towers["features"]

    def place(self, params: Any) -> Any:
        """`params`, which every process has, replicated on the mesh."""
        return jax.device_put(params, self._replicated)

    def image(self, params: Any, image_N: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of images in memory."""
        return self._all(self._image, params, image_N.__getitem__, len(image_N))

    def text(self, params: Any, text_NxL: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of tokens."""
        return self._all(self._text, params, text_NxL.__getitem__, len(text_NxL))

    def images(self, params: Any, source: Source, index_N: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of the images at `index_N`, read batch by batch."""
        return self._all(self._image, params, lambda at: source.image(index_N[at]), len(index_N))

    def features(self, params: Any, source: Source, index_N: np.ndarray) -> np.ndarray:
        """The image tower's features `N x F`, see `features`; cached embeddings as they are."""
        if self._cached:
            return source.image(index_N)
        return self._all(self._features, params, lambda at: source.image(index_N[at]), len(index_N))

    def _all(
        self, encode: Any, params: Any, read: Callable[[np.ndarray], np.ndarray], count: int
    ) -> np.ndarray:
        """`encode` of rows 0 to `count`, in order; `read` gives the rows at int64 positions."""
        out = []
        for start in range(0, count, self._size):
            own = start + self._own_R
            # In the last batch a process may have no row: it reads one for its shape.
            x_R = read(own[own < count] if own[0] < count else np.array([start]))
            pad = [(0, len(own) - len(x_R))] + [(0, 0)] * (x_R.ndim - 1)
            x_R = jax.make_array_from_process_local_data(self._rows, np.pad(x_R, pad))
            out.append(np.asarray(encode(params, x_R)))
        return np.concatenate(out)[:count]


def jit_towers(model: Model, data: Data, vocabulary: Vocabulary, mesh: Mesh) -> dict[str, Any]:
    """`image`, `text` and `features`, each `(params, batch) -> rows`, which evaluations run and
    `study plan` compiles.

    Parameters keep their shardings; the rows of a batch are spread over the mesh, and every device
    gets all rows of the result.
    """
    # Any loss will do: t and b do not enter an embedding, and an unused `b` is ignored.
    cell = Cell(model=model, data=data, loss=Softmax(), batch_size=2)
    # Without the rows' sharding XLA gathers activations instead of sharded parameters.
    towers = TwoTowers(cell, vocabulary, rows=by_row(mesh) if mesh.size > 1 else None)

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


@functools.lru_cache(maxsize=8)
def encoder(model: Model, data: Data, vocabulary: Vocabulary, size: int, mesh: Mesh) -> Encoder:
    """One `Encoder` for all cells of this process with the same towers, so compiled once."""
    return Encoder(model, data, vocabulary, size=size, mesh=mesh)
