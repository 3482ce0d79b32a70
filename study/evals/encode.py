"""Embeddings of many images or texts, in padded batches of one compiled size."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from study.cell import Cell, Data, Model, Softmax
from study.towers.two_towers import TwoTowers

SIZE = 2048


class Encoder:
    """`image(params, images)` and `text(params, tokens)`, both to unit rows `N x E`.

    size: examples encoded at a time.
    """

    def __init__(self, model: Model, data: Data, vocabulary: int, *, size: int = SIZE):
        self._size = size
        # Any loss will do: t and b do not enter an embedding, and a spare `b` is let be.
        cell = Cell(model=model, data=data, loss=Softmax(), batch_size=2)
        towers = TwoTowers(cell, vocabulary)
        self._image = jax.jit(lambda p, x: towers.apply({"params": p}, x, None)[0])
        self._text = jax.jit(lambda p, x: towers.apply({"params": p}, None, x)[1])

    def image(self, params: object, image_N: np.ndarray) -> np.ndarray:
        return _padded(self._image, params, image_N, self._size)

    def text(self, params: object, text_NxL: np.ndarray) -> np.ndarray:
        return _padded(self._text, params, text_NxL, self._size)


@functools.lru_cache(maxsize=8)
def encoder(model: Model, data: Data, vocabulary: int) -> Encoder:
    """One `Encoder` for all cells of this process with the same towers, so compiled once."""
    return Encoder(model, data, vocabulary)


def _padded(
    encode: Callable[[object, jax.Array], jax.Array], params: object, x_N: np.ndarray, size: int
) -> np.ndarray:
    out = []
    for start in range(0, len(x_N), size):
        part = x_N[start : start + size]
        pad = [(0, size - len(part))] + [(0, 0)] * (part.ndim - 1)
        out.append(np.asarray(encode(params, jnp.asarray(np.pad(part, pad))))[: len(part)])
    return np.concatenate(out)
