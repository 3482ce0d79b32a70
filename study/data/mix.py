"""Several data sets as one source; `study.data.order` says which set each position takes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from study.config import CachedImage, Data, ViT
from study.data.formats.dataset import DataError, Dataset
from study.data.order import Order
from study.data.sources import open_source
from study.data.stream import Source
from study.data.tokenizer import Tokenizer


class Mixture:
    """Data sets to train on together, with one tokenizer.

    Arguments:
      dataset: the one that `data.dataset` names; the others are beside it.

    Attributes:
      fingerprint: of all sets in their order.
      examples: of the split, over all sets.

    Raises:
      DataError: a set that is missing, lacks the split, or names another tokenizer.
    """

    def __init__(self, dataset: Dataset, data: Data):
        mix = data.mix or ((data.dataset, 1),)
        self._data, self._main = data, dataset
        self._weights = [weight for _, weight in mix]
        self._datasets = [
            dataset if name == data.dataset else Dataset.open(dataset.folder.parent / name)
            for name, _ in mix
        ]
        self._sizes = [one.split(data.split).examples for one in self._datasets]
        self.examples = sum(self._sizes)
        self.fingerprint = dataset.fingerprint
        if data.mix:
            lines = (f"{one.name} {one.fingerprint}\n" for one in self._datasets)
            self.fingerprint = hashlib.sha256("".join(lines).encode()).hexdigest()

    def open(
        self, image: CachedImage | ViT, *, threads: int | None = None, workers: int = 0
    ) -> Source:
        """The source of the examples of all sets; arguments as of `open_source`."""
        sources = [
            open_source(
                one,
                self._data.split,
                image,
                with_tokenizer(one, self._main, self._data),
                threads=threads,
                workers=workers,
            )
            for one in self._datasets
        ]
        if len(sources) == 1:
            return sources[0]
        return MixedSource(sources, [one.name for one in self._datasets], self._weights)

    def order(self, seed: int) -> Order:
        """The order in which a cell with this seed takes the examples."""
        return Order.of(self._sizes, seed=seed, weights=self._weights, kind=self._data.order)


def with_tokenizer(one: Dataset, main: Dataset, data: Data) -> Data:
    """The settings to read `one` with the tokenizer of the cell.

    Raises:
      DataError: the cell names none, and the two sets name different ones.
    """
    if one is main:
        return data
    if data.tokenizer is None and one.tokenizer.exists():
        if Tokenizer.open(one, data).digest == Tokenizer.open(main, data).digest:
            return data
        raise DataError(
            f"data.mix: {main.name} and {one.name} have different tokenizers; choose one with "
            f"data.tokenizer (--set data.tokenizer={main.tokenizer.name} takes that of {main.name})"
        )
    model = main.folder / data.tokenizer if data.tokenizer else main.tokenizer
    return dataclasses.replace(data, tokenizer=str(model.absolute()))


class MixedSource:
    """The examples of several sources, one after another.

    Arguments:
      names: of the data sets, for messages.
      weights: of the sets, which say how many examples of each were read.

    Raises:
      DataError: sources whose images differ in shape.
    """

    def __init__(self, sources: Sequence[Source], names: Sequence[str], weights: Sequence[int]):
        self._sources = sources
        self._ends_S = np.cumsum([source.size for source in sources])
        self.size = int(self._ends_S[-1])
        self.replacements = _MixedReplacements(self, weights)
        first = [source.batch(np.zeros(1, np.int64))["image"] for source in sources]
        for name, image in zip(names, first, strict=True):
            if image.shape != first[0].shape:
                raise DataError(
                    f"data.mix: an image of {names[0]} is {_shape(first[0])}, one of {name} "
                    f"{_shape(image)}; mix sets whose images have as many channels"
                )
        self._dtype = np.result_type(*first)

    def batch(self, index_N: np.ndarray) -> dict[str, np.ndarray]:
        """{"image": N x ..., "text": int32 N x L}."""
        arrays = self._gather(index_N, lambda source, index_M: source.batch(index_M))
        return arrays | {"image": arrays["image"].astype(self._dtype, copy=False)}

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """`text` alone."""
        return self._gather(index_N, lambda source, index_M: {"text": source.text(index_M)})["text"]

    def prefetch(self, index_N: np.ndarray) -> None:
        """See `study.data.stream.Source`."""
        for source, _, index_M in self.split(index_N):
            source.prefetch(index_M)

    def split(self, index_N: np.ndarray) -> list[tuple[Source, np.ndarray, np.ndarray]]:
        """The sources that have any of these examples, their rows of N, and their own indices."""
        index_N = np.asarray(index_N)
        set_N = np.searchsorted(self._ends_S, index_N, side="right")
        parts = []
        for k in np.unique(set_N):
            rows, source = np.flatnonzero(set_N == k), self._sources[k]
            parts.append((source, rows, index_N[rows] - self._ends_S[k] + source.size))
        return parts

    def _gather(
        self,
        index_N: np.ndarray,
        read: Callable[[Source, np.ndarray], dict[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        parts = [(rows, read(source, index_M)) for source, rows, index_M in self.split(index_N)]
        row_N = np.argsort(np.concatenate([rows for rows, _ in parts]))
        return {
            name: np.concatenate([arrays[name] for _, arrays in parts])[row_N]
            for name in parts[0][1]
        }


class _MixedReplacements:
    """Counts the replaced examples of all sets. Each set has its own limit."""

    def __init__(self, source: MixedSource, weights: Sequence[int]):
        self._source, self._weights = source, weights

    def count_read(self, index_N: np.ndarray) -> int:
        return sum(
            source.replacements.count_read(index_M)
            for source, _, index_M in self._source.split(index_N)
        )

    def resolve(self, index_N: np.ndarray) -> np.ndarray:
        """The examples that stand for these."""
        resolved_N = np.array(index_N)
        for source, rows, index_M in self._source.split(index_N):
            resolved_N[rows] += source.replacements.resolve(index_M) - index_M
        return resolved_N

    def resume(self, read: float, replaced: float) -> None:
        """Takes the earlier replacements to be of each set in proportion to its weight."""
        for source, weight in zip(self._source._sources, self._weights, strict=True):
            share = weight / sum(self._weights)
            source.replacements.resume(read * share, replaced * share)


def _shape(image_1x: np.ndarray) -> str:
    return " x ".join(map(str, image_1x.shape[1:]))
