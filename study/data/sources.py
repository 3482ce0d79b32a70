"""Sources: batches of a split by index, from cached embeddings or from image shards.

A bad example is replaced by the next usable one of the split (`study.data.replacements`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from study.config import CachedImage, Data, ViT
from study.config.host import cores
from study.data import cache
from study.data.decode_processes import DecodeProcesses
from study.data.embeddings import CachedEmbeddings
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split, read_image_rows
from study.data.formats.reader import BadExampleError, Reader
from study.data.images import DecodeOptions, decode_into
from study.data.replacements import Replacements
from study.data.texts import Texts

Batch = dict[str, np.ndarray]
DecodeFn = Callable[[Sequence[bytes], np.ndarray, Sequence[int], DecodeOptions], dict[int, str]]
_BLOCK = 32  # examples that a thread or process decodes at a time
_LABELS = 1 << 14  # examples whose metadata are fetched at a time
_SMALL_FILE = 4096  # bytes; smaller images take longer in Python, under the GIL, than in PIL


class EmbeddingSource:
    """Cached image embeddings and tokens of a split.

    Raises:
      DataError: embeddings that are missing, stale, not finite or of another width than
        `image.dim`, or too many bad examples.
    """

    def __init__(self, dataset: Dataset, split: str, image: CachedImage, data: Data):
        self._cache = CachedEmbeddings.open(dataset, image.embeddings, split)
        if self._cache.dim != image.dim:
            raise DataError(
                f"the embeddings {image.embeddings} are {self._cache.dim} wide, the cell expects "
                f"{image.dim}; set model.image.dim and model.embed_dim to {self._cache.dim}"
            )
        self.size = len(self._cache)
        self.texts = Texts(dataset, split, data, whole=True)
        self.replacements = Replacements(
            size=self.size, max_share=data.max_bad_share, name=f"{dataset.name}, {split}"
        )
        # Otherwise bad examples are found as they are read.
        self._knows_bad = self._cache.bad is not None and self.texts.in_memory
        bad = {i: BadExampleError(reason) for i, reason in self._cache.bad_examples.items()}
        if self._knows_bad:
            self.replacements.add_all_bad(bad)
        else:
            for count, kind in (
                (self._cache.bad_rows, "embeddings"),
                (self.texts.bad_rows, "tokens"),
            ):
                self.replacements.check_count(count, f"see the files of the {kind}")
        self._rows_NxE = None
        if self._cache.stored.nbytes <= cache.IN_MEMORY_BYTES:

            def read_all() -> tuple[np.ndarray]:
                rows_NxE = self._cache.rows()
                self._find_nan(np.arange(len(rows_NxE)), rows_NxE)
                return (rows_NxE,)

            (self._rows_NxE,) = cache.share(dataset, self._cache.identity, read_all)

    def batch(self, index_N: np.ndarray) -> Batch:
        """{"image": N x E, "text": int32 N x L}."""
        if self._knows_bad:
            self.replacements.add_all_bad(self.texts.bad)
        return self._read(index_N, with_text=True)

    def image(self, index_N: np.ndarray) -> np.ndarray:
        """Embeddings alone, N x E, in the type that they are stored in."""
        return self._read(index_N, with_text=False)["image"]

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens alone, int32 N x L; a bad image does not matter."""
        return self.texts.read(index_N)

    def prefetch(self, index_N: np.ndarray) -> None:
        """See `study.data.stream.Source`."""
        index_N = self.replacements.resolve(index_N)
        if self._rows_NxE is None:
            self._cache.stored.prefetch(self._cache.to_rows(index_N))
        self.texts.prefetch(index_N)

    def _read(self, index_N: np.ndarray, *, with_text: bool) -> Batch:
        index_N = np.asarray(index_N)
        batch: Batch = {}

        def read_rows(example_M: np.ndarray, row_M: np.ndarray) -> dict[int, BadExampleError]:
            row_K = self._cache.to_rows(example_M)
            if self._rows_NxE is not None:
                part = {"image": self._rows_NxE.take(row_K, axis=0)}
            else:
                part = {"image": self._cache.stored.take(row_K)}
            if with_text:
                part["text"] = self.texts.take(example_M)
            if batch:
                for name, rows in part.items():
                    batch[name][row_M] = rows
            else:
                batch.update(part)
            bad: dict[int, BadExampleError] = {}
            if self._rows_NxE is None or not self._knows_bad:
                nan_M = self._find_nan(row_K, part["image"])
                bad = {int(i): self._bad_image(int(i)) for i in example_M[nan_M]}
            return bad | (self.texts.find_bad(example_M, part["text"]) if with_text else {})

        self.replacements.read(index_N, read_rows)
        return batch

    def _find_nan(self, row_N: np.ndarray, values_NxE: np.ndarray) -> np.ndarray:
        """Which of these stored rows are NaN because their image cannot be used, bool N.

        Raises:
          DataError: others are not finite: a NaN would look like a run that diverged.
        """
        if _all_finite(values_NxE):
            return np.zeros(len(row_N), bool)
        nan_N: np.ndarray = np.isnan(values_NxE).all(1)
        if self._cache.bad is not None:
            nan_N &= np.isin(row_N, list(self._cache.bad))
        broken_N = ~nan_N & ~np.isfinite(values_NxE).all(1)
        if broken_N.any():
            path = self._cache.stored.path(int(row_N[np.argmax(broken_N)]))
            raise DataError(
                f"the embeddings {self._cache.name} hold NaN or infinite rows, the first in "
                f"{path}; remove their folder and make them again"
            )
        return nan_N

    def _bad_image(self, i: int) -> BadExampleError:
        path = self._cache.stored.path(int(self._cache.to_rows(np.array([i]))[0]))
        return BadExampleError(
            f"example {i}: its image cannot be used; {path.stem}.json beside {path} has the reason"
        )


def _all_finite(values_NxE: np.ndarray) -> bool:
    if values_NxE.dtype == np.float16:
        # All bits of the exponent are set; `np.isfinite` takes six times as long.
        largest = (values_NxE.view(np.uint16) & np.uint16(0x7FFF)).max(initial=0)
        return bool(largest < 0x7C00)
    return bool(np.isfinite(values_NxE).all())


class ImageSource:
    """Decoded images and tokens of a split.

    Arguments:
      crop: share of each side that remains: resized to size / crop, then cropped at the center.
      channels: 1 or 3; None takes the data set's entry, or that of its first images.
      threads: decoder threads; None is one per core.
      workers: decode in this many processes instead.
      keep: keep decoded pixels in memory, each image from its first use on; None keeps them if
        they are at most half of `cache.IN_MEMORY_BYTES`.
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
        workers: int = 0,
        keep: bool | None = None,
    ):
        self._reader = open_split(dataset, split)
        self.size = len(self._reader)
        channels = channels or dataset.channels or self._reader.channels()
        self._options = DecodeOptions(image.image_size, channels, data.resize, crop)
        self.replacements = Replacements(
            size=self.size, max_share=data.max_bad_share, name=f"{dataset.name}, {split}"
        )
        shape = (image.image_size, image.image_size, channels)
        # In a split of pairs several examples share an image, which is then decoded once.
        self._images_N = read_image_rows(dataset, split)
        images_of = dataset.split(split).images or split
        images = dataset.split(images_of).examples
        pixels = images * shape[0] * shape[1] * shape[2]
        self._keep = pixels <= cache.IN_MEMORY_BYTES // 2 if keep is None else keep
        self._shape = shape

        def allocate() -> tuple[np.ndarray, np.ndarray]:
            # The memory is committed lazily, so examples that are never read cost nothing.
            return np.empty((images, *shape), np.uint8), np.zeros(images, bool)

        if self._keep:
            name = ("pixels", images_of, shape, crop, data.resize)
            self._pixels_NxHxWxC, self._decoded_N = cache.share(dataset, name, allocate)
        self.texts = Texts(dataset, split, data, whole=self._keep)
        self._decode_into: DecodeFn = decode_into
        small = _has_small_files(self._reader)
        self._threads = 1 if small else threads or cores()
        if workers and not small:
            self._decode_into = processes = DecodeProcesses(workers, block=_BLOCK, shape=shape)
            self._threads = processes.calls

    def batch(self, index_N: np.ndarray) -> Batch:
        """{"image": uint8 N x H x W x C, "text": int32 N x L}."""
        if self._keep:
            self.replacements.add_bad(self.texts.bad, index_N)
            image_NxHxWxC = self.image(index_N)
            return {
                "image": image_NxHxWxC,
                "text": self.texts.take(self.replacements.resolve(index_N)),
            }
        pixels_NxHxWxC, texts = self._read(index_N, with_text=True)
        return {"image": pixels_NxHxWxC, "text": self.texts.tokenizer(texts)}

    def image(self, index_N: np.ndarray) -> np.ndarray:
        """Pixels alone, uint8 N x H x W x C; a bad text does not matter."""
        return self._read(index_N, with_text=False)[0]

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens alone, int32 N x L; a bad image does not matter."""
        return self.texts.read(index_N)

    def prefetch(self, index_N: np.ndarray) -> None:
        """See `study.data.stream.Source`."""
        index_N = self.replacements.resolve(np.asarray(index_N))
        if self._keep:
            image_N = index_N if self._images_N is None else self._images_N[index_N]
            index_N = index_N[~self._decoded_N[image_N]]
        self._reader.prefetch(index_N, text=not self._keep)

    def _read(self, index_N: np.ndarray, *, with_text: bool) -> tuple[np.ndarray, list[str]]:
        """Pixels, uint8 N x H x W x C, and texts (empty without `with_text`)."""
        index_N = np.asarray(index_N)
        out_NxHxWxC = np.empty((len(index_N), *self._shape), np.uint8)
        texts = [""] * len(index_N)

        def read_rows(example_M: np.ndarray, row_M: np.ndarray) -> dict[int, BadExampleError]:
            if not self._keep:
                return self._decode(example_M, row_M, out_NxHxWxC, texts if with_text else None)
            image_M = example_M if self._images_N is None else self._images_N[example_M]
            missing_M = np.flatnonzero(~self._decoded_N[image_M])
            new_K, first_K = np.unique(image_M[missing_M], return_index=True)
            example_K = example_M[missing_M[first_K]]
            errors = self._decode(example_K, new_K, self._pixels_NxHxWxC, None)
            # Never set for a bad one, even for a moment: another source may read it.
            self._decoded_N[new_K[~np.isin(example_K, list(errors))]] = True
            out_NxHxWxC[row_M] = self._pixels_NxHxWxC[image_M]
            if not errors:
                return {}
            of_image = dict(zip(new_K.tolist(), map(errors.get, example_K.tolist()), strict=True))
            image_of = zip(example_M.tolist(), image_M.tolist(), strict=True)
            return {i: error for i, image in image_of if (error := of_image.get(image))}

        self.replacements.read(index_N, read_rows)
        return out_NxHxWxC, texts

    def _decode(
        self,
        example_M: np.ndarray,
        row_M: np.ndarray,
        out_NxHxWxC: np.ndarray,
        texts: list[str] | None,
    ) -> dict[int, BadExampleError]:
        """Decodes examples into rows of the outputs; returns the bad ones."""
        self._reader.prefetch(example_M, text=texts is not None)  # what no hint announced

        def decode(pairs: Sequence[tuple[int, int]]) -> dict[int, BadExampleError]:
            bad, examples, rows, images = {}, [], [], []
            for i, row in pairs:
                try:
                    if texts is None:
                        image = self._reader.image(i)
                    else:
                        image, texts[row] = self._reader.pair(i)
                except BadExampleError as error:
                    bad[i] = error
                else:
                    examples.append(i)
                    rows.append(row)
                    images.append(image)
            reasons = self._decode_into(images, out_NxHxWxC, rows, self._options)
            for k, reason in reasons.items():
                bad[examples[k]] = self._reader.bad_image(examples[k], reason)
            return bad

        pairs = list(zip(example_M.tolist(), row_M.tolist(), strict=True))
        blocks = [pairs[k : k + _BLOCK] for k in range(0, len(pairs), _BLOCK)]
        if self._threads == 1 or len(blocks) == 1:
            return {i: error for block in blocks for i, error in decode(block).items()}
        with ThreadPoolExecutor(self._threads) as pool:  # PIL releases the GIL
            return {i: error for bad in pool.map(decode, blocks) for i, error in bad.items()}


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
    workers: int = 0,
) -> Source:
    """Opens the source that a cell's image tower reads.

    `crop`, `channels`, `threads` and `workers` are as in `ImageSource`. Embeddings are used as they
    were made; `Cell` refuses a resize or crop of them.

    Raises:
      DataError: an empty split; see also `EmbeddingSource` and `open_split`.
    """
    if not dataset.split(split).examples:
        raise DataError(f"the split {split} of {dataset.folder} has no examples")
    if isinstance(image, CachedImage):
        return EmbeddingSource(dataset, split, image, data)
    return ImageSource(
        dataset,
        split,
        image,
        data,
        crop=crop,
        channels=channels,
        threads=threads,
        workers=workers,
    )


def load_labels(dataset: Dataset, split: str) -> np.ndarray:
    """The class of each example, int32 N: an index into the class names.

    Raises:
      DataError: no class names, or an example whose metadata lack a valid "class".
    """
    if not dataset.class_names:
        raise DataError(
            f"{dataset.folder} has no class names, so no classes; choose a tower or evaluation "
            'that needs none, or add classnames.txt and "class" in each json'
        )

    if (rows_N := read_image_rows(dataset, split)) is not None:
        return load_labels(dataset, str(dataset.split(split).images))[rows_N]

    def make() -> np.ndarray:
        reader, classes = open_split(dataset, split), len(dataset.class_names)
        class_N = np.empty(len(reader), np.int32)
        for i in range(len(reader)):
            if i % _LABELS == 0:
                reader.prefetch(
                    np.arange(i, min(i + _LABELS, len(reader))), image=False, text=False, json=True
                )
            value = reader.json(i).get("class")
            if not isinstance(value, int) or not 0 <= value < classes:
                raise reader.bad_example(
                    i, f'its "class" is {value!r}, not an index into the class names'
                )
            class_N[i] = value
        return class_N

    return cache.get_or_make(dataset, f"labels-{split}", make)


def _has_small_files(reader: Reader) -> bool:
    """Whether images take longer in Python than in Pillow, by the size of the first ones."""
    sizes = [1]
    reader.prefetch(np.arange(min(16, len(reader))), text=False)
    for i in range(min(16, len(reader))):
        try:
            sizes.append(len(reader.image(i)))
        except BadExampleError:
            continue
    return sum(sizes) / len(sizes) <= _SMALL_FILE
