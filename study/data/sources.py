"""Sources: whole batches of a split by index, from cached embeddings or from image shards."""

from __future__ import annotations

from typing import Any

import numpy as np

from study.cell import CachedImage, ViT
from study.data import memo
from study.data.dataset import DataError, Dataset
from study.data.embeddings import CachedEmbeddings
from study.data.shards import ShardReader
from study.data.tokens import Tokenizer

Batch = dict[str, np.ndarray]


class EmbeddedSource:
    """`batch(index_N)` is {"image": float32 NxE cached embeddings, "text": int32 NxL tokens}.

    Raises:
      DataError: embeddings that are missing, stale or of another width than `dim`.
    """

    def __init__(self, dataset: Dataset, split: str, image: CachedImage, text_length: int):
        self._cache = CachedEmbeddings.open(dataset, image.embeddings, split)
        if self._cache.dim != image.dim:
            raise DataError(
                f"the embeddings {image.embeddings} are {self._cache.dim} wide, the cell says "
                f"{image.dim}; set model.image.dim and model.embed_dim to {self._cache.dim}"
            )
        self.size = len(self._cache)
        self.tokens_NxL = tokens(dataset, split, text_length)
        small = 4 * self.size * image.dim <= memo.IN_MEMORY_BYTES
        self._rows_NxE = self._cache.rows() if small else None

    def batch(self, index_N: np.ndarray) -> Batch:
        if self._rows_NxE is not None:
            image_NxE = self._rows_NxE.take(index_N, axis=0)
        else:
            image_NxE = self._cache.take(index_N)
        text_NxL = self.tokens_NxL.take(index_N, axis=0).astype(np.int32, copy=False)
        return {"image": image_NxE, "text": text_NxL}


class ImageSource:
    """`batch(index_N)` is {"image": float32 NxHxWxC in [-1, 1], "text": int32 NxL tokens}.

    Grayscale images keep their one channel. A split whose pixels are few is kept decoded, each
    image from its first use on.
    """

    def __init__(self, dataset: Dataset, split: str, image: ViT, text_length: int):
        self._reader = ShardReader.of(dataset, split)
        self.size = len(self._reader)
        self.image_size = image.image_size
        self.channels = self._reader.channels()
        self.tokens_NxL = tokens(dataset, split, text_length)
        pixels = self.size * self.image_size**2 * self.channels
        self._keep = pixels <= memo.IN_MEMORY_BYTES // 2
        self._forget()

    def batch(self, index_N: np.ndarray) -> Batch:
        index_N = np.asarray(index_N)
        pixels_NxHxWxC = self._gather(index_N)
        image_NxHxWxC = pixels_NxHxWxC.astype(np.float32)
        image_NxHxWxC *= np.float32(1 / 127.5)
        image_NxHxWxC -= 1
        text_NxL = self.tokens_NxL.take(index_N, axis=0).astype(np.int32, copy=False)
        return {"image": image_NxHxWxC, "text": text_NxL}

    def _forget(self) -> None:
        # Memory that is never touched costs nothing.
        shape = (self.image_size, self.image_size, self.channels)
        self._pixels_NxHxWxC = np.empty((self.size if self._keep else 0, *shape), np.uint8)
        self._decoded_N = np.zeros(len(self._pixels_NxHxWxC), bool)

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v for k, v in self.__dict__.items() if k not in ("_pixels_NxHxWxC", "_decoded_N")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _gather(self, index_N: np.ndarray) -> np.ndarray:
        if not self._keep:
            return self._decode(index_N)
        new_M = np.unique(index_N[~self._decoded_N[index_N]])
        if len(new_M):
            self._pixels_NxHxWxC[new_M] = self._decode(new_M)
            self._decoded_N[new_M] = True
        return self._pixels_NxHxWxC.take(index_N, axis=0)

    def _decode(self, index_N: np.ndarray) -> np.ndarray:
        return self._reader.pixels(index_N, size=self.image_size, channels=self.channels)


Source = EmbeddedSource | ImageSource


def open_source(dataset: Dataset, split: str, image: CachedImage | ViT, text_length: int) -> Source:
    """The source that a cell's image tower reads.

    Raises:
      DataError: see `EmbeddedSource` and `study.data.shards.ShardReader`.
    """
    if isinstance(image, CachedImage):
        return EmbeddedSource(dataset, split, image, text_length)
    return ImageSource(dataset, split, image, text_length)


def tokens(dataset: Dataset, split: str, length: int) -> np.ndarray:
    """Tokens of all texts of a split, N x length, made once (the fingerprint covers the model)."""

    def make() -> np.ndarray:
        tokenizer = Tokenizer(dataset.tokenizer, length)
        tokens_NxL = tokenizer(list(ShardReader.of(dataset, split).texts()))
        return tokens_NxL.astype(np.uint16) if tokenizer.vocabulary <= 1 << 16 else tokens_NxL

    tokens_NxL = memo.array(dataset, f"tokens-{split}-{length}", make)
    small = 4 * tokens_NxL.size <= memo.IN_MEMORY_BYTES
    return tokens_NxL.astype(np.int32, copy=False) if small else tokens_NxL


def labels(dataset: Dataset, split: str) -> np.ndarray:
    """The class of each example, int32 N: its line in the class names, from 0.

    Raises:
      DataError: an example whose metadata have no "class", or one that is no such line.
    """

    def make() -> np.ndarray:
        reader, classes = ShardReader.of(dataset, split), len(dataset.class_names)
        class_N = np.empty(len(reader), np.int32)
        for i in range(len(reader)):
            value = reader.json(i).get("class")
            if not isinstance(value, int) or not 0 <= value < classes:
                raise reader.damage(i, f'its "class" is {value!r}, not a line of the class names')
            class_N[i] = value
        return class_N

    return memo.array(dataset, f"labels-{split}", make)
