"""Sources: whole batches of a split by index, from cached embeddings or from image shards."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from study.cell import CachedImage, ViT
from study.data import memo
from study.data.dataset import DataError, Dataset
from study.data.embeddings import CachedEmbeddings
from study.data.shards import ShardReader
from study.data.tokens import Tokenizer

Batch = dict[str, np.ndarray]


class _Texts:
    """Tokens of a split by index, read when first asked for: evaluations may need images alone."""

    def __init__(self, dataset: Dataset, split: str, text_length: int):
        self._texts = dataset, split, text_length

    @functools.cached_property
    def tokens_NxL(self) -> np.ndarray:
        return tokens(*self._texts)

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens, int32 N x L."""
        return self.tokens_NxL.take(index_N, axis=0).astype(np.int32, copy=False)


class EmbeddedSource(_Texts):
    """`batch(index_N)` is {"image": float32 NxE cached embeddings, "text": int32 NxL tokens}.

    Raises:
      DataError: embeddings that are missing, stale, of another width than `dim`, or no numbers.
    """

    def __init__(self, dataset: Dataset, split: str, image: CachedImage, text_length: int):
        super().__init__(dataset, split, text_length)
        self._cache = CachedEmbeddings.open(dataset, image.embeddings, split)
        if self._cache.dim != image.dim:
            raise DataError(
                f"the embeddings {image.embeddings} are {self._cache.dim} wide, the cell says "
                f"{image.dim}; set model.image.dim and model.embed_dim to {self._cache.dim}"
            )
        self.size = len(self._cache)
        small = 4 * self.size * image.dim <= memo.IN_MEMORY_BYTES
        self._rows_NxE = self._finite(self._cache.rows()) if small else None

    def batch(self, index_N: np.ndarray) -> Batch:
        return {"image": self.image(index_N), "text": self.text(index_N)}

    def image(self, index_N: np.ndarray) -> np.ndarray:
        """Cached embeddings, float32 N x E."""
        if self._rows_NxE is not None:
            return self._rows_NxE.take(index_N, axis=0)
        return self._finite(self._cache.take(index_N))

    def _finite(self, rows_NxE: np.ndarray) -> np.ndarray:
        """The rows; a cell that met one that is no number would be taken for one that diverged."""
        if not np.isfinite(rows_NxE).all():
            raise DataError(
                f"the embeddings {self._cache.name} hold rows that are no numbers; remove their "
                "folder and make them again"
            )
        return rows_NxE


class ImageSource(_Texts):
    """`batch(index_N)` is {"image": float32 NxHxWxC in [-1, 1], "text": int32 NxL tokens}.

    Grayscale images keep their one channel, unless `channels` says otherwise. A split whose
    pixels are few is kept decoded, each image from its first use on.

    Arguments:
      crop: the share of each side that is seen: resized to size / crop, cut around the centre.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        image: ViT,
        text_length: int,
        *,
        crop: float = 1.0,
        channels: int | None = None,
    ):
        super().__init__(dataset, split, text_length)
        self._reader = ShardReader.of(dataset, split)
        self.size = len(self._reader)
        self.image_size = image.image_size
        self.crop = crop
        self.channels = channels or self._reader.channels()
        pixels = self.size * self.image_size**2 * self.channels
        self._keep = pixels <= memo.IN_MEMORY_BYTES // 2
        self._forget()

    def batch(self, index_N: np.ndarray) -> Batch:
        return {"image": self.image(index_N), "text": self.text(index_N)}

    def image(self, index_N: np.ndarray) -> np.ndarray:
        """Pixels, float32 N x H x W x C in [-1, 1]."""
        image_NxHxWxC = self._gather(np.asarray(index_N)).astype(np.float32)
        image_NxHxWxC *= np.float32(1 / 127.5)
        image_NxHxWxC -= 1
        return image_NxHxWxC

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
        size, whole = self.image_size, int(self.image_size / self.crop)
        pixels_NxHxWxC = self._reader.pixels(index_N, size=whole, channels=self.channels)
        left = (whole - size) // 2
        return pixels_NxHxWxC[:, left : left + size, left : left + size]


Source = EmbeddedSource | ImageSource


def open_source(
    dataset: Dataset,
    split: str,
    image: CachedImage | ViT,
    text_length: int,
    *,
    crop: float = 1.0,
    channels: int | None = None,
) -> Source:
    """The source that a cell's image tower reads. Cached embeddings are as they were made.

    Raises:
      DataError: an empty split; see also `EmbeddedSource` and `study.data.shards.ShardReader`.
    """
    if not dataset.split(split).examples:
        raise DataError(f"the split {split} of {dataset.folder} has no examples")
    if isinstance(image, CachedImage):
        return EmbeddedSource(dataset, split, image, text_length)
    return ImageSource(dataset, split, image, text_length, crop=crop, channels=channels)


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
