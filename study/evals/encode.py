"""Embeddings of many images or texts, in padded batches of one compiled size, over all chips.

The rows of a batch are spread over the chips of this process, and the batches over the
processes; what was padded is dropped. So a number depends on neither the batch size nor the
chips, but for the rounding of a sum.
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
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.cell import CachedImage, Cell, Data, Model, Softmax
from study.data.sources import Source
from study.towers.two_towers import TwoTowers

Device = Any
SIZE = 2048


class Encoder:
    """Unit embeddings of images and texts, and features of images.

    Arguments:
      data: only its text length matters.
      size: examples per batch, rounded up to a multiple of the chips.
      devices: None is all chips of this process.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        vocabulary: int,
        *,
        size: int = SIZE,
        devices: tuple[Device, ...] | None = None,
    ):
        # Any loss will do: t and b do not enter an embedding, and a spare `b` is let be.
        cell = Cell(model=model, data=data, loss=Softmax(), batch_size=2)
        towers = TwoTowers(cell, vocabulary)
        devices = devices or own_devices()
        self._cached = isinstance(model.image, CachedImage)
        self._size = math.ceil(size / len(devices)) * len(devices)
        mesh = Mesh(np.array(devices), ("data",))
        self._everywhere, self._rows = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

        def compiled(encode: Callable[[Any, jax.Array], Any]) -> Any:
            return jax.jit(
                encode, in_shardings=(self._everywhere, self._rows), out_shardings=self._rows
            )

        self._image = compiled(lambda p, x: towers.apply({"params": p}, x, None)[0])
        self._text = compiled(lambda p, x: towers.apply({"params": p}, None, x)[1])
        self._features = compiled(functools.partial(features, towers))

    def place(self, params: Any) -> Any:
        """`params` on every chip of this process."""
        return jax.device_put(params, self._everywhere)

    def image(self, params: Any, image_N: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of images at hand."""
        return self._all(self._image, params, lambda at: image_N[at], len(image_N))

    def text(self, params: Any, text_NxL: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of tokens."""
        return self._all(self._text, params, lambda at: text_NxL[at], len(text_NxL))

    def images(self, params: Any, source: Source, index_N: np.ndarray) -> np.ndarray:
        """Unit embeddings `N x E` of the images at `index_N`, read batch by batch."""
        return self._all(self._image, params, lambda at: source.image(index_N[at]), len(index_N))

    def features(self, params: Any, source: Source, index_N: np.ndarray) -> np.ndarray:
        """The image tower's features `N x F`, see `features`; cached embeddings as they are."""
        if self._cached:
            return source.image(index_N)
        return self._all(self._features, params, lambda at: source.image(index_N[at]), len(index_N))

    def _all(
        self, encode: Any, params: Any, read: Callable[[slice], np.ndarray], count: int
    ) -> np.ndarray:
        """Rows of all batches in order; process k of n encodes the k-th run of batches."""
        processes, process = jax.process_count(), jax.process_index()
        batches = math.ceil(count / self._size / processes)
        out = []
        for k in range(batches * process, batches * (process + 1)):
            at = slice(k * self._size, min((k + 1) * self._size, count))
            # Put where it belongs by hand: jit does not spread numpy rows in a multi-host run.
            out.append(
                np.asarray(encode(params, jax.device_put(self._padded(read(at)), self._rows)))
            )
        rows = np.concatenate(out)
        if processes > 1:
            rows = np.concatenate(multihost_utils.process_allgather(rows))
        return rows[:count]

    def _padded(self, x_N: np.ndarray) -> np.ndarray:
        pad = [(0, self._size - len(x_N))] + [(0, 0)] * (x_N.ndim - 1)
        return np.pad(x_N, pad)


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
def encoder(
    model: Model, data: Data, vocabulary: int, size: int, devices: tuple[Device, ...]
) -> Encoder:
    """One `Encoder` for all cells of this process with the same towers, so compiled once."""
    return Encoder(model, data, vocabulary, size=size, devices=devices)


def own_devices() -> tuple[Device, ...]:
    """The chips of this process."""
    return tuple(d for d in jax.devices() if d.process_index == jax.process_index())
