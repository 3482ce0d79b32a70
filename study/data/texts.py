"""The texts of a split as tokens: all made once and cached, or each when it is needed."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np

from study.config import Data
from study.data import cache
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError, Reader
from study.data.replacements import Replacements
from study.data.tokenizer import Tokenizer

_CHUNK = 1 << 16  # texts tokenized at a time


class Texts:
    """Tokens of a split by index.

    Arguments:
      whole: tokenize all texts at first use and keep the tokens; else read texts one by one.
    """

    def __init__(self, dataset: Dataset, split: str, data: Data, *, whole: bool):
        self._dataset, self._split, self._data, self._whole = dataset, split, data, whole
        self._replacements = Replacements(
            size=dataset.split(split).examples,
            max_share=data.max_bad_share,
            name=f"{dataset.name}, {split}",
        )

    @functools.cached_property
    def tokens_NxL(self) -> np.ndarray:
        return load_tokens(self._dataset, self._split, self._data)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.open(self._dataset, self._data)

    @functools.cached_property
    def bad(self) -> dict[int, BadExampleError]:
        """All examples of the split without a usable text."""
        bad_M = np.flatnonzero(self.tokens_NxL[:, 0] == self.tokenizer.vocabulary.size)
        return _read_texts(self._reader, bad_M.tolist())[1] if len(bad_M) else {}

    def take(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens of usable examples, int32 N x L; for `whole` texts only."""
        return self.tokens_NxL.take(index_N, axis=0).astype(np.int32, copy=False)

    def read(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens of these examples, int32 N x L; a bad text is replaced, whatever its image is."""
        index_N = np.asarray(index_N)
        if self._whole:
            self._replacements.add_all_bad(self.bad)
            return self.take(self._replacements.resolve(index_N))
        text_N = np.full(len(index_N), "", object)

        def read_rows(example_M: np.ndarray, row_M: np.ndarray) -> dict[int, BadExampleError]:
            text_N[row_M], bad = _read_texts(self._reader, example_M.tolist())
            return bad

        self._replacements.read(index_N, read_rows)
        return self.tokenizer(text_N.tolist())

    @functools.cached_property
    def _reader(self) -> Reader:
        return open_split(self._dataset, self._split)


def load_tokens(dataset: Dataset, split: str, data: Data) -> np.ndarray:
    """Tokens of all texts of a split, N x length, made once and cached.

    The row of a text that cannot be read holds the vocabulary's size, which is not an id.
    """
    tokenizer = Tokenizer.open(dataset, data)
    not_an_id = tokenizer.vocabulary.size

    def make() -> np.ndarray:
        reader = open_split(dataset, split)
        dtype = np.uint16 if not_an_id < 1 << 16 else np.int32
        tokens_NxL = np.empty((len(reader), data.text_length), dtype)
        for start in range(0, len(reader), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(reader)))
            reader.prefetch(np.array(rows), image=False)
            texts, bad = _read_texts(reader, rows)
            tokens_NxL[rows.start : rows.stop] = tokenizer(texts)
            tokens_NxL[list(bad)] = not_an_id
        return tokens_NxL

    name = f"tokens-{split}-{data.text_length}{tokenizer.options}"
    if data.tokenizer is not None:  # the fingerprint covers the data set's own model only
        name += f"-{tokenizer.digest[:12]}"
    tokens_NxL = cache.get_or_make(dataset, name, make)
    in_memory = 4 * tokens_NxL.size <= cache.IN_MEMORY_BYTES
    return tokens_NxL.astype(np.int32, copy=False) if in_memory else tokens_NxL


def _read_texts(
    reader: Reader, index: Iterable[int]
) -> tuple[list[str], dict[int, BadExampleError]]:
    """The texts of these examples ("" where it is bad), and the bad ones."""
    texts, bad = [], {}
    for i in index:
        try:
            texts.append(reader.text(i))
        except BadExampleError as error:
            texts.append("")
            bad[i] = error
    return texts, bad
