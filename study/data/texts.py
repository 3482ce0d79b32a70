"""The texts of a split as tokens: kept in memory, read from shards, or each made when needed."""

from __future__ import annotations

import functools

import numpy as np

from study.config import Data
from study.data import cache
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError, Reader
from study.data.replacements import Replacements
from study.data.token_shards import open_tokens, read_texts, token_dtype, tokenize_all
from study.data.tokenizer import Tokenizer


class Texts:
    """Tokens of a split by index.

    Arguments:
      whole: tokenize all texts at first use and keep the tokens, or read those that `study data
        tokenize` has made if they do not fit in memory; else read texts one by one.

    Attributes:
      in_memory: whether all tokens are.
      bad_rows: the number of texts that cannot be used, if tokens are read from shards.

    Raises:
      DataError: the tokens neither fit in memory nor have been made.
    """

    def __init__(self, dataset: Dataset, split: str, data: Data, *, whole: bool):
        self._dataset, self._split, self._data = dataset, split, data
        size = dataset.split(split).examples
        self._replacements = Replacements(
            size=size, max_share=data.max_bad_share, name=f"{dataset.name}, {split}"
        )
        self.in_memory, self.bad_rows = whole, 0
        if whole and 2 * size * data.text_length > cache.IN_MEMORY_BYTES:
            row_bytes = data.text_length * token_dtype(self.tokenizer).itemsize
            self.in_memory = size * row_bytes <= cache.IN_MEMORY_BYTES
        self._stored = None
        if whole and not self.in_memory:
            self._stored, self.bad_rows = open_tokens(dataset, split, data)

    @functools.cached_property
    def tokens_NxL(self) -> np.ndarray:
        """All tokens, if they fit in memory."""
        return load_tokens(self._dataset, self._split, self._data)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.open(self._dataset, self._data)

    @functools.cached_property
    def bad(self) -> dict[int, BadExampleError]:
        """All examples of the split without a usable text, if all tokens are in memory."""
        bad_M = np.flatnonzero(self.tokens_NxL[:, 0] == self.tokenizer.vocabulary.size)
        return read_texts(self._reader, bad_M.tolist())[1] if len(bad_M) else {}

    def take(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens of usable examples, int32 N x L; for `whole` texts only."""
        if self._stored is not None:
            return self._stored.take(index_N).astype(np.int32, copy=False)
        return self.tokens_NxL.take(index_N, axis=0).astype(np.int32, copy=False)

    def find_bad(self, index_N: np.ndarray, tokens_NxL: np.ndarray) -> dict[int, BadExampleError]:
        """Those of the examples `index_N`, taken from shards, whose text cannot be used."""
        if self._stored is None:
            return {}
        bad_M = index_N[tokens_NxL[:, 0] == self.tokenizer.vocabulary.size]
        return {i: self._bad_text(i) for i in bad_M.tolist()}

    def prefetch(self, index_N: np.ndarray) -> None:
        """Begins to read tokens that are taken soon, if they are in a bucket."""
        if self._stored is not None:
            self._stored.prefetch(index_N)

    def read(self, index_N: np.ndarray) -> np.ndarray:
        """Tokens of these examples, int32 N x L; a bad text is replaced, whatever its image is."""
        index_N = np.asarray(index_N)
        if self.in_memory:
            self._replacements.add_all_bad(self.bad)
            return self.take(self._replacements.resolve(index_N))
        out_NxL = np.empty((len(index_N), self._data.text_length), np.int32)

        def read_rows(example_M: np.ndarray, row_M: np.ndarray) -> dict[int, BadExampleError]:
            if self._stored is not None:
                out_NxL[row_M] = self.take(example_M)
                return self.find_bad(example_M, out_NxL[row_M])
            texts, bad = read_texts(self._reader, example_M.tolist())
            out_NxL[row_M] = self.tokenizer(texts)
            return bad

        self._replacements.read(index_N, read_rows)
        return out_NxL

    def _bad_text(self, i: int) -> BadExampleError:
        assert self._stored is not None
        path = self._stored.path(i)
        return BadExampleError(
            f"example {i}: its text cannot be used; {path.stem}.json beside {path} has the reason"
        )

    @functools.cached_property
    def _reader(self) -> Reader:
        return open_split(self._dataset, self._split)


def load_tokens(dataset: Dataset, split: str, data: Data) -> np.ndarray:
    """Tokens of all texts of a split, N x length, made once and cached.

    The row of a text that cannot be read holds the vocabulary's size, which is not an id.
    """
    tokenizer = Tokenizer.open(dataset, data)
    name = f"tokens-{split}-{data.text_length}{tokenizer.options}"
    if data.tokenizer is not None:  # the fingerprint covers the data set's own model only
        name += f"-{tokenizer.digest[:12]}"
    tokens_NxL = cache.get_or_make(
        dataset, name, lambda: tokenize_all(open_split(dataset, split), tokenizer)[0]
    )
    in_memory = 4 * tokens_NxL.size <= cache.IN_MEMORY_BYTES
    return tokens_NxL.astype(np.int32, copy=False) if in_memory else tokens_NxL
