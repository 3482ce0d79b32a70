"""Replaces examples that cannot be used (damaged image, missing text) by their neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from study.data.formats.dataset import HINT, DataError
from study.data.formats.reader import BadExampleError

# Bad examples that are remembered, so that memory does not grow with the split. Older ones are met
# again where they are read again.
MAX_REMEMBERED = 1 << 20
# The share is taken of at least this many examples; else one bad example at the start of a run
# would exceed it.
_MIN_READ = 1000


class Replacements:
    """Replaces a bad example by the next usable one of the split, wrapping around.

    The replacement depends on the index and the data alone, not on what was read before. So does
    the decision that too many are bad: at each position of the stream the replaced examples up to
    it are counted, including those before a restart (`resume`).

    Arguments:
      size: examples in the split.
      max_share: largest share of bad examples among those read; with 0 the first one is raised.
      name: the split, for messages.
    """

    def __init__(self, *, size: int, max_share: float, name: str):
        self._size, self._max_share, self._name = size, max_share, name
        self._read = self._replaced = 0.0  # positions of the stream
        self._bad = np.empty(0, np.int64)  # sorted
        self._older = self._bad  # sorted
        self._first: BadExampleError | None = None
        self._complete = False  # all bad examples of the split are known and within the limit

    def resume(self, read: float, replaced: float) -> None:
        """Continues after `read` positions of the stream, `replaced` of them replacements."""
        self._read, self._replaced = read, replaced

    def resolve(self, index_N: np.ndarray) -> np.ndarray:
        """The examples to use in place of these, as far as bad ones are known."""
        if not len(self._bad):
            return index_N
        out_N = np.array(index_N)
        while (bad_N := self._is_bad(out_N)).any():
            out_N[bad_N] = (out_N[bad_N] + 1) % self._size
        return out_N

    def read(
        self,
        index_N: np.ndarray,
        read_rows: Callable[[np.ndarray, np.ndarray], dict[int, BadExampleError]],
    ) -> None:
        """Calls `read_rows` until it has read a usable example for each of `index_N`.

        Arguments:
          read_rows: `read_rows(example_M, row_M)` reads examples into rows (of N) of its output
            and returns the bad ones.

        Raises:
          BadExampleError, DataError: see `add_bad`.
        """
        row_M = np.arange(len(index_N))
        while len(row_M):
            example_M = self.resolve(index_N[row_M])
            bad = read_rows(example_M, row_M)
            if not bad:
                return
            self.add_bad(bad, index_N)
            row_M = row_M[np.isin(example_M, list(bad))]

    def count_read(self, index_N: np.ndarray) -> int:
        """Adds positions of the stream that have been read; returns how many were replaced.

        Raises:
          DataError: too many are bad.
        """
        count = 0
        if len(self._bad):
            self._check_share(index_N)
            count = int(self._is_bad(index_N).sum())
        self._read += len(index_N)
        self._replaced += count
        return count

    def add_bad(self, bad: dict[int, BadExampleError], index_N: np.ndarray) -> None:
        """Adds bad examples that were met while reading for `index_N`.

        Raises:
          BadExampleError: the first of them, if none is allowed.
          DataError: too many are bad. `count_read` would raise it too, but a split without any
            usable example would never get there.
        """
        if bad:
            self._add(bad)
            self._check_share(index_N)

    def add_all_bad(self, bad: dict[int, BadExampleError]) -> None:
        """Adds all bad examples of the split. Raises as `add_bad` does."""
        self._complete = True
        if bad:
            self._add(bad)
            if len(self._bad) > self._max_share * self._size:
                raise self._too_many(len(self._bad), self._size)

    def check_count(self, bad: int, reason: str) -> None:
        """Refuses a split of which `bad` examples cannot be used, before any of them is met.

        Raises:
          DataError: too many are bad.
        """
        if bad > self._max_share * self._size:
            self._first = self._first or BadExampleError(reason)
            raise self._too_many(bad, self._size)

    def _add(self, bad: dict[int, BadExampleError]) -> None:
        first = bad[min(bad)]
        if not self._max_share:
            raise first
        self._first = self._first or first
        new = np.fromiter(bad, np.int64)
        if len(self._bad) + len(new) > MAX_REMEMBERED // 2 and not self._complete:
            self._older, self._bad = self._bad, np.empty(0, np.int64)
        self._bad = np.union1d(self._bad, new)

    def _is_bad(self, index_N: np.ndarray) -> np.ndarray:
        is_bad_N = np.zeros(len(index_N), bool)
        for bad in (self._bad, self._older):
            if len(bad):
                at_N = np.searchsorted(bad, index_N)
                is_bad_N |= bad.take(at_N, mode="clip") == index_N
        return is_bad_N

    def _check_share(self, index_N: np.ndarray) -> None:
        if self._complete or not len(self._bad):
            return
        replaced_N = self._replaced + np.cumsum(self._is_bad(np.asarray(index_N)))
        read_N = self._read + np.arange(1, len(index_N) + 1)
        share_N = replaced_N / np.maximum(read_N, min(self._size, _MIN_READ))
        if (share_N > self._max_share).any():
            k = int(np.argmax(share_N > self._max_share))
            read = max(int(read_N[k]), min(self._size, _MIN_READ))
            raise self._too_many(round(replaced_N[k]), read)

    def _too_many(self, bad: int, read: int) -> DataError:
        reason = str(self._first).removesuffix(f"; {HINT}")
        return DataError(
            f"{bad} of the first {read:,} examples read of {self._name} cannot be used: "
            f"{bad / read:.2%}, more than data.max_bad_share = {self._max_share:.2%}; one of "
            f"them: {reason}; raise the limit or download the data set again"
        )
