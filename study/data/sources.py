"""Sources: whole batches of a split by index, from cached embeddings or from image shards.

An example that cannot be used is replaced by the next one that can (`study.data.replacements`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from study.config.cell import CachedImage, Data, ViT
from study.config.host import cores
from study.data import cache
from study.data.embeddings import CachedEmbeddings
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError
from study.data.images import scale_pixels
from study.data.replacements import Replacements
from study.data.texts import Texts

Batch = dict[str, np.ndarray]
_BLOCK = 32  # examples that a thread decodes at a time
_SMALL_FILE = 4096  # bytes; decoding smaller images is Python's work more than PIL's


class EmbeddingSource:
    """`batch(index_N)` is {"image": float32 NxE cached embeddings, "text": int32 NxL tokens}.

    Raises:
      DataError: embeddings that are missing, stale or of another width than `dim`, or no numbers,
        or too many examples that cannot be used.
    """

    def __init__(self, dataset: Dataset, split: str, image: CachedImage, data: Data):
        self._cache = CachedEmbeddings.open(dataset, image.embeddings, split)
        if self._cache.dim != image.dim:
            raise DataError(
                f"the embeddings {image.embeddings} are {self._cache.dim} wide, the cell says "
                f"{image.dim}; set model.image.dim and model.embed_dim to {self._cache.dim}"
            )
        self.size = len(self._cache)
        self.texts = Texts(dataset, split, data, whole=True)
        self.replacements = Replacements(
            size=self.size, max_share=data.max_bad_share, what=f"{dataset.name}, {split}"
        )
        bad = {i: BadExampleError(why) for i, why in self._cache.bad.items()}
        self.replacements.add_all_bad(bad)
        small = 4 * self.size * image.dim <= cache.IN_MEMORY_BYTES
        self._rows_NxE = None
        if small:
            self._rows_NxE = self._cache.rows()
            self._finite(np.delete(self._rows_NxE, list(bad), axis=0) if bad else self._rows_NxE)

    def batch(self, index_N: np.ndarray) -> Batch:
        self.replacements.add_all_bad(self.texts.bad)
        index_N = self.replacements.resolve(index_N)
        return {"image": self.image(index_N), "text": self.texts.take(index_N)}

    def image(self, index_N: np.ndarray) -> np.ndarray:
        """Cached embeddings alone, float32 N x E."""
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

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens alone, int32 N x L, whatever their images are."""
        return self.texts.usable(index_N)


class ImageSource:
    """`batch(index_N)` is {"image": float32 NxHxWxC in [-1, 1], "text": int32 NxL tokens}.

    Grayscale images keep their one channel, unless `channels` says otherwise. A split whose
    pixels are few is kept decoded, each image from its first use on; of others, images and texts
    are read when they are asked for.

    Arguments:
      crop: the share of each side that is seen: resized to size / crop, cut around the centre.
      channels: 1 or 3; None takes what the data set says, or what its first images have.
      threads: that decode; None is one for each core.
      keep: decoded images; None keeps them if they are few.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        image: ViT,
        data: Data,
        *,
        crop: float = 1.0,
        channels: int | None = None,
        threads: int | None = None,
        keep: bool | None = None,
    ):
        self._reader = open_split(dataset, split)
        self.size = len(self._reader)
        self.image_size, self.crop, self._resize = image.image_size, crop, data.resize
        self.channels = channels or dataset.channels or self._reader.channels()
        self.replacements = Replacements(
            size=self.size, max_share=data.max_bad_share, what=f"{dataset.name}, {split}"
        )
        pixels = self.size * self.image_size**2 * self.channels
        self._keep = pixels <= cache.IN_MEMORY_BYTES // 2 if keep is None else keep
        self.texts = Texts(dataset, split, data, whole=self._keep)
        self._threads = _threads(self._reader, threads)
        self._forget()

    def batch(self, index_N: np.ndarray) -> Batch:
        index_N = np.asarray(index_N)
        if self._keep:
            self.replacements.add_bad(self.texts.bad, index_N)
            pixels_NxHxWxC = self._kept(index_N)
            text_NxL = self.texts.take(self.replacements.resolve(index_N))
        else:
            pixels_NxHxWxC, texts = self._read(index_N, text=True)
            text_NxL = self.texts.tokenizer(texts)
        return {"image": scale_pixels(pixels_NxHxWxC), "text": text_NxL}

    def image(self, index_N: np.ndarray) -> np.ndarray:
        """Pixels alone, whatever their texts are, float32 N x H x W x C in [-1, 1]."""
        index_N = np.asarray(index_N)
        return scale_pixels(
            self._kept(index_N) if self._keep else self._read(index_N, text=False)[0]
        )

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens alone, int32 N x L, whatever their images are."""
        return self.texts.usable(index_N)

    def _kept(self, index_N: np.ndarray) -> np.ndarray:
        while True:
            at_N = self.replacements.resolve(index_N)
            new_M = np.unique(at_N[~self._decoded_N[at_N]])
            if not len(new_M):
                return self._pixels_NxHxWxC.take(at_N, axis=0)
            bad, _ = self._fill(new_M, self._pixels_NxHxWxC, new_M, text=False)
            self._decoded_N[new_M] = True
            self._decoded_N[list(bad)] = False
            self.replacements.add_bad(bad, index_N)

    def _read(self, index_N: np.ndarray, *, text: bool) -> tuple[np.ndarray, list[str]]:
        out_NxHxWxC = np.empty((len(index_N), *self._shape), np.uint8)
        texts = [""] * len(index_N)
        todo_M = np.arange(len(index_N))
        while len(todo_M):
            at_M = self.replacements.resolve(index_N[todo_M])
            bad, found = self._fill(at_M, out_NxHxWxC, todo_M, text=text)
            for row, value in zip(todo_M.tolist(), found, strict=True):
                texts[row] = value
            todo_M = todo_M[np.isin(at_M, list(bad))]
            self.replacements.add_bad(bad, index_N)
        return out_NxHxWxC, texts

    def _fill(
        self, index_M: np.ndarray, out_NxHxWxC: np.ndarray, row_M: np.ndarray, *, text: bool
    ) -> tuple[dict[int, BadExampleError], list[str]]:
        """Decodes examples into rows of `out_NxHxWxC`; returns the damaged ones, and the texts."""
        whole = int(self.image_size / self.crop)
        left = (whole - self.image_size) // 2
        seen = slice(left, left + self.image_size)

        def decode(
            pairs: Sequence[tuple[int, int]],
        ) -> tuple[dict[int, BadExampleError], list[str]]:
            bad, texts = {}, []
            for i, row in pairs:
                texts.append("")
                try:
                    data, texts[-1] = self._reader.pair(i) if text else (self._reader.image(i), "")
                    pixels_HxWxC = self._reader.decode_image(
                        i, data, size=whole, channels=self.channels, resize=self._resize
                    )
                except BadExampleError as error:
                    bad[i] = error
                else:
                    out_NxHxWxC[row] = pixels_HxWxC[seen, seen]
            return bad, texts

        pairs = list(zip(index_M.tolist(), row_M.tolist(), strict=True))
        if self._threads == 1 or len(pairs) <= _BLOCK:
            return decode(pairs)
        # PIL lets go of the interpreter while it decodes and resizes.
        blocks = [pairs[k : k + _BLOCK] for k in range(0, len(pairs), _BLOCK)]
        with ThreadPoolExecutor(self._threads) as pool:
            parts = list(pool.map(decode, blocks))
        found = {i: error for bad, _ in parts for i, error in bad.items()}
        return found, [value for _, texts in parts for value in texts]

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.channels

    def _forget(self) -> None:
        # Memory that is never touched costs nothing.
        self._pixels_NxHxWxC = np.empty((self.size if self._keep else 0, *self._shape), np.uint8)
        self._decoded_N = np.zeros(len(self._pixels_NxHxWxC), bool)

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v for k, v in self.__dict__.items() if k not in ("_pixels_NxHxWxC", "_decoded_N")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


Source = EmbeddingSource | ImageSource


def open_source(
    dataset: Dataset,
    split: str,
    image: CachedImage | ViT,
    data: Data,
    *,
    crop: float = 1.0,
    channels: int | None = None,
    threads: int | None = None,
) -> Source:
    """The source that a cell's image tower reads.

    Cached embeddings are as they were made: `Cell` refuses a resize or crop of them.

    Raises:
      DataError: an empty split; see also `EmbeddingSource` and `study.data.formats.open_split`.
    """
    if not dataset.split(split).examples:
        raise DataError(f"the split {split} of {dataset.folder} has no examples")
    if isinstance(image, CachedImage):
        return EmbeddingSource(dataset, split, image, data)
    return ImageSource(dataset, split, image, data, crop=crop, channels=channels, threads=threads)


def load_labels(dataset: Dataset, split: str) -> np.ndarray:
    """The class of each example, int32 N: its line in the class names, from 0.

    Raises:
      DataError: no class names, an example whose metadata have no "class", or one that is no
        such line.
    """
    if not dataset.class_names:
        raise DataError(
            f"{dataset.folder} has no class names, and so no classes; use what needs none (the "
            'tower of a checkpoint, another evaluation) or give it classnames.txt and "class" in '
            "each json"
        )

    def make() -> np.ndarray:
        reader, classes = open_split(dataset, split), len(dataset.class_names)
        class_N = np.empty(len(reader), np.int32)
        for i in range(len(reader)):
            value = reader.json(i).get("class")
            if not isinstance(value, int) or not 0 <= value < classes:
                raise reader.bad_example(
                    i, f'its "class" is {value!r}, not a line of the class names'
                )
            class_N[i] = value
        return class_N

    return cache.get_or_make(dataset, f"labels-{split}", make)


def _threads(reader: Any, threads: int | None) -> int:
    sizes = [1]
    for i in range(min(16, len(reader))):
        try:
            sizes.append(len(reader.image(i)))
        except BadExampleError:
            continue
    return (threads or cores()) if sum(sizes) / len(sizes) > _SMALL_FILE else 1
