"""Embeds many images or texts, in padded batches of one compiled size, on all devices.

The rows of a batch are spread over the devices of all processes, and each process reads its own.
Parameters keep their shardings. Results depend on neither the batch size nor the devices, except
for the rounding of sums.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from study.config import CachedImage, Data, Model
from study.config.model import Vocabulary
from study.data.sources import Source
from study.models.embed import jit_towers
from study.models.sharding import batch_sharding, local_rows, make_mesh, replicated

SIZE = 2048


class Encoder:
    """Unit embeddings of images and texts, and features of images.

    Every process of the mesh calls every method, and gets all rows. `params` are arrays on the
    mesh, replicated or sharded as `study.models.sharding.param_shardings` has them.

    Arguments:
      data: only its text length is used.
      size: examples per batch over all devices, rounded up to a multiple of their number.
      mesh: the devices; None for all.
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
        mesh = make_mesh(jax.devices()) if mesh is None else mesh
        self._cached = isinstance(model.image, CachedImage)
        self._size = math.ceil(size / mesh.size) * mesh.size
        self._replicated, self._rows = replicated(mesh), batch_sharding(mesh)
        self._own_R = local_rows(mesh, self._size)
        towers = jit_towers(model, data, vocabulary, mesh)
        self._image, self._text = towers["image"], towers["text"]
        self._features = towers["features"]

    def place(self, params: Any) -> Any:
        """Replicates on the mesh `params` that every process holds."""
        return jax.device_put(params, self._replicated)

    def embed_pixels(self, params: Any, image_N: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of images in memory."""
        return self._all(self._image, params, image_N.__getitem__, len(image_N))

    def embed_texts(self, params: Any, text_NxL: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of tokens `N x L`."""
        return self._all(self._text, params, text_NxL.__getitem__, len(text_NxL))

    def embed_images(self, params: Any, source: Source, index_N: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of the images at `index_N`, read batch by batch."""
        return self._all(self._image, params, lambda at: source.image(index_N[at]), len(index_N))

    def image_features(self, params: Any, source: Source, index_N: np.ndarray) -> np.ndarray:
        """Features `N x F`, see `jit_towers`; cached embeddings as they are."""
        if self._cached:
            return source.image(index_N)
        return self._all(self._features, params, lambda at: source.image(index_N[at]), len(index_N))

    def _all(
        self, encode: Any, params: Any, read: Callable[[np.ndarray], np.ndarray], count: int
    ) -> np.ndarray:
        """`encode` of rows 0 to `count`; `read` returns the rows at int64 positions.

        While the devices encode a batch, the next one is read, and the one before is fetched.
        """
        out: list[np.ndarray] = []
        previous = None
        for start in range(0, count, self._size):
            own = start + self._own_R
            # A process without rows in the last batch reads one row for its shape.
            x_R = read(own[own < count] if own[0] < count else np.array([start]))
            pad = [(0, len(own) - len(x_R))] + [(0, 0)] * (x_R.ndim - 1)
            x_R = jax.make_array_from_process_local_data(self._rows, np.pad(x_R, pad))
            z = encode(params, x_R)
            z.copy_to_host_async()
            if previous is not None:
                out.append(np.asarray(previous))
            previous = z
        out.append(np.asarray(previous))
        return np.concatenate(out)[:count]


@functools.lru_cache(maxsize=8)
def cached_encoder(
    model: Model, data: Data, vocabulary: Vocabulary, size: int, mesh: Mesh
) -> Encoder:
    """One compiled `Encoder` for all cells of this process that have the same towers."""
    return Encoder(model, data, vocabulary, size=size, mesh=mesh)
