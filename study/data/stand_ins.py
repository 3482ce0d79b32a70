"""Examples that cannot be used, and which stand in for them."""

from __future__ import annotations

import numpy as np

from study.data.dataset import HOW_TO_MEND, DataError
from study.data.reader import DamagedExample

_FEW = (
    1000  # the share is of at least so many examples, or one bad one at the start would end a run
)


class StandIns:
    """For each example that cannot be used the next one of the split that can, the first after
    the last: a function of the index and the data alone, whatever has been read before.

    Arguments:
      size: examples in the split.
      max_share: of the examples read so far that may be bad; with 0 the first bad one is raised.
      what: the split, in words.
    """

    def __init__(self, *, size: int, max_share: float, what: str):
        self._size, self._max_share, self._what = size, max_share, what
        self._seen = 0
        self._bad = np.empty(0, np.int64)  # sorted
        self._first: DamagedExample | None = None

    def of(self, index_N: np.ndarray) -> np.ndarray:
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

    def seen(self, count: int) -> None:
        """Notes that so many examples have been asked for."""
        self._seen = min(self._size, self._seen + count)

    def note(self, found: dict[int, DamagedExample]) -> None:
        """Adds bad examples.

        Raises:
          DamagedExample: the first of them, where none is allowed.
          DataError: they are too many.
        """
        if not found:
            return
        first = found[min(found)]
        if not self._max_share:
            raise first
        self._first = self._first or first
        self._bad = np.union1d(self._bad, np.fromiter(found, np.int64))
        read = max(self._seen, min(self._size, _FEW))
        share = len(self._bad) / read
        if share > self._max_share:
            one = str(self._first).removesuffix(f"; {HOW_TO_MEND}")
            raise DataError(
                f"{len(self._bad)} of the first {read:,} examples read of {self._what} cannot be "
                f"used, which is {share:.2%} and more than data.max_bad_share = "
                f"{self._max_share:.2%}; one of them: {one}; allow more, or get the set again"
            )

    def _known(self, index_N: np.ndarray) -> np.ndarray:
        at_N = np.searchsorted(self._bad, index_N)
        return self._bad.take(at_N, mode="clip") == index_N
