"""The texts of a split as tokens: all of them made once, or each when it is asked for."""

from __future__ import annotations

import functools

import numpy as np

from study.config.cell import Data
from study.data import cache
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError, Reader
from study.data.replacements import Replacements
from study.data.tokenizer import Tokenizer


class Texts:
    """Tokens by index.

    Arguments:
      whole: read all texts at the first use and keep their tokens; else read them one by one.
    """

    def __init__(self, dataset: Dataset, split: str, data: Data, *, whole: bool):
        self._dataset, self._split, self._data, self._whole = dataset, split, data, whole
        self._replacements = Replacements(
            size=dataset.split(split).examples,
            max_share=data.max_bad_share,
            what=f"{dataset.name}, {split}",
        )

    @functools.cached_property
    def tokens_NxL(self) -> np.ndarray:
        return load_tokens(self._dataset, self._split, self._data)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.open(self._dataset, self._data)

    @functools.cached_property
    def bad(self) -> dict[int, BadExampleError]:
        """The examples without a usable text, where all have been read."""
        rows = np.flatnonzero(self.tokens_NxL[:, 0] == self.tokenizer.vocabulary.size)
        return _damage(self._reader, rows) if len(rows) else {}

    def take(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens of examples that are known to have some, int32 N x L."""
        if self._whole:
            return self.tokens_NxL.take(index_N, axis=0).astype(np.int32, copy=False)
        return self.tokenizer([self._reader.text(i) for i in np.asarray(index_N).tolist()])

    def usable(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens of these examples, or of the next that have a text, int32 N x L."""
        index_N = np.asarray(index_N)
        if self._whole:
            self._replacements.add_all_bad(self.bad)
            return self.take(self._replacements.resolve(index_N))
        while True:
            at_N = self._replacements.resolve(index_N)
            try:
                return self.take(at_N)
            except BadExampleError:
                self._replacements.add_bad(_damage(self._reader, np.unique(at_N)), index_N)

    @functools.cached_property
    def _reader(self) -> Reader:
        return open_split(self._dataset, self._split)


def load_tokens(dataset: Dataset, split: str, data: Data) -> np.ndarray:
    """Tokens of all texts of a split, N x length, made once (the fingerprint covers the model).

    A text that cannot be read is a row of the vocabulary's size, which is not an id.
    """
    tokenizer = Tokenizer.open(dataset, data)
    not_an_id = tokenizer.vocabulary.size

    def make() -> np.ndarray:
        reader = open_split(dataset, split)
        kind = np.uint16 if not_an_id < 1 << 16 else np.int32
        tokens_NxL = np.empty((len(reader), data.text_length), kind)
        for start in range(0, len(reader), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(reader)))
            texts, bad = [], []
            for i in rows:
                try:
                    texts.append(reader.text(i))
                except BadExampleError:
                    texts.append("")
                    bad.append(i)
            tokens_NxL[rows.start : rows.stop] = tokenizer(texts)
            tokens_NxL[bad] = not_an_id
        return tokens_NxL

    name = f"tokens-{split}-{data.text_length}{tokenizer.options}"
    if data.tokenizer is not None:  # the fingerprint covers the set's own model and no other
        name += f"-{tokenizer.digest[:12]}"
    tokens_NxL = cache.get_or_make(dataset, name, make)
    in_memory = 4 * tokens_NxL.size <= cache.IN_MEMORY_BYTES
    return tokens_NxL.astype(np.int32, copy=False) if in_memory else tokens_NxL


_AT_ONCE = 1 << 16


def _damage(reader: Reader, index_N: np.ndarray) -> dict[int, BadExampleError]:
    found = {}
    for i in index_N.tolist():
        try:
            reader.text(i)
        except BadExampleError as error:
            found[i] = error
    return found
