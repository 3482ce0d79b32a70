"""Replacements for examples that cannot be used."""

from __future__ import annotations

import numpy as np

from study.data.formats.dataset import HINT, DataError
from study.data.formats.reader import BadExampleError

# The share is of at least this many examples, or one bad example at the start would end a run.
_FEW = 1000


class Replacements:
    """For each example that cannot be used the next one of the split that can, the first after
    the last: a function of the index and the data alone, whatever has been read before.

    So is whether too many are bad: at each position of the stream the replaced examples up to it
    are counted, those before a restart included (`resume`).

    Arguments:
      size: examples in the split.
      max_share: of the examples read so far that may be bad; with 0 the first bad one is raised.
      what: the split, in words.
    """

    def __init__(self, *, size: int, max_share: float, what: str):
        self._size, self._max_share, self._what = size, max_share, what
        self._read = self._replaced = 0.0  # positions of the stream
        self._bad = np.empty(0, np.int64)  # sorted
        self._first: BadExampleError | None = None
        self._complete = False  # every bad example of the split is known, and they are few

    def resume(self, read: float, replaced: float) -> None:
        """Goes on after `read` positions of the stream, at `replaced` of which another stood in."""
        self._read, self._replaced = read, replaced

    def resolve(self, index_N: np.ndarray) -> np.ndarray:
        """The examples to use: the indexes themselves, but for those known to be bad."""
        if not len(self._bad):
            return index_N
        out_N = np.array(index_N)
        while (known_N := self._known(out_N)).any():
            out_N[known_N] = (out_N[known_N] + 1) % self._size
        return out_N

    def count(self, index_N: np.ndarray) -> int:
        """How many of these are known to be bad."""
        return int(self._known(index_N).sum()) if len(self._bad) else 0

    def count_read(self, index_N: np.ndarray) -> int:
        """Adds positions of the stream, whose examples have been read; returns how many of them
        were replaced.

        Raises:
          DataError: they are too many.
        """
        self._judge(index_N)
        count = self.count(index_N)
        self._read += len(index_N)
        self._replaced += count
        return count

    def add_bad(self, found: dict[int, BadExampleError], index_N: np.ndarray) -> None:
        """Adds bad examples, met while the examples `index_N` were read.

        Raises:
          BadExampleError: the first of them, where none is allowed.
          DataError: they are too many. `tally` would raise it too, but with no usable example
            left reading would not come to an end.
        """
        if found:
            self._add(found)
            self._judge(index_N)

    def add_all_bad(self, found: dict[int, BadExampleError]) -> None:
        """Adds bad examples where all of the split have been examined. Raises as `note` does."""
        if found:
            self._add(found)
            if len(self._bad) > self._max_share * self._size:
                raise self._too_many(len(self._bad), self._size)
        self._complete = True

    def _add(self, found: dict[int, BadExampleError]) -> None:
        first = found[min(found)]
        if not self._max_share:
            raise first
        self._first = self._first or first
        self._bad = np.union1d(self._bad, np.fromiter(found, np.int64))

    def _judge(self, index_N: np.ndarray) -> None:
        if self._complete or not len(self._bad):
            return
        replaced_N = self._replaced + np.cumsum(self._known(np.asarray(index_N)))
        read_N = self._read + np.arange(1, len(index_N) + 1)
        share_N = replaced_N / np.maximum(read_N, min(self._size, _FEW))
        if (share_N > self._max_share).any():
            k = int(np.argmax(share_N > self._max_share))
            read = max(int(read_N[k]), min(self._size, _FEW))
            raise self._too_many(round(replaced_N[k]), read)

    def _too_many(self, bad: int, read: int) -> DataError:
        one = str(self._first).removesuffix(f"; {HINT}")
        return DataError(
            f"{bad} of the first {read:,} examples read of {self._what} cannot be used, which is "
            f"{bad / read:.2%} and more than data.max_bad_share = {self._max_share:.2%}; one of "
            f"them: {one}; allow more, or get the set again"
        )

    def _known(self, index_N: np.ndarray) -> np.ndarray:
        at_N = np.searchsorted(self._bad, index_N)
        return self._bad.take(at_N, mode="clip") == index_N
