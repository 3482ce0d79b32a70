"""Which example is at position i of a run: a function of (data sets, seed, i), in O(1).

- **global**: every epoch is a permutation of all examples. For local disks: each example is a read
  of its own.
- **blocks**: every epoch is a permutation of blocks of neighbouring examples. The examples of each
  window of some consecutive blocks of it are then permuted. For buckets: a window is read as a few
  long runs of bytes.
- **mix**: cycles of the stream, as long as the weights' sum, have each data set at as many
  positions as its weight says, in a permutation of their own. A set's examples are taken in the
  order that the set has alone, exchanged within a cycle at most.

Nothing is stored, so any position of a set of billions costs the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from study.config.data import Blocks, Global
from study.data import rng
from study.data.permute import ROUNDS, permute

_WINDOW_KEY, _MIX_KEY = 0xB10C, 0x313D  # keep these keys apart from those of epochs
_MANY_ROUNDS = 8  # for short permutations: with `ROUNDS`, those of 5 elements are uneven by a third


def indices(position_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """The examples at some positions in global order; see `SetOrder`."""
    return SetOrder(size=size, seed=seed).indices(position_N)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetOrder:
    """The order of the examples of one data set.

    Every `size` positions are an epoch, which has each example once, in an order of its own.

    Arguments:
      size: number of examples.
      seed: the cell's seed.
    """

    size: int
    seed: int
    kind: Global | Blocks = dataclasses.field(default_factory=Global)

    def indices(self, position_N: np.ndarray) -> np.ndarray:
        """The examples at some positions.

        Arguments:
          position_N: int64, counted from the start of the run.

        Returns:
          Indices into the set, int64 N.
        """
        position_N = np.asarray(position_N, np.int64)
        epoch_N, offset_N = np.divmod(position_N, self.size)
        index_N = np.empty_like(position_N)
        for epoch in np.unique(epoch_N).tolist():
            in_epoch_N = epoch_N == epoch
            offset_M = offset_N[in_epoch_N]
            if isinstance(self.kind, Blocks):
                index_N[in_epoch_N] = self._epoch(epoch).indices(offset_M)
            else:
                key = _epoch_key(self.seed, epoch, ROUNDS)
                index_N[in_epoch_N] = permute(offset_M, size=self.size, key=key)
        return index_N

    def window_end(self, position: int) -> int:
        """The position after the window of open blocks that this position is in."""
        epoch, offset = divmod(position, self.size)
        _, end_N = self._epoch(epoch).window(np.array([offset]))
        return epoch * self.size + int(end_N[0])

    def _epoch(self, epoch: int) -> _BlocksEpoch:
        assert isinstance(self.kind, Blocks)
        return _BlocksEpoch(self.size, self.kind, self.seed, epoch)


class _BlocksEpoch:
    """An epoch in blocks order. The last block of the data may be shorter than the others.

    A slot is a place in the permutation of the blocks. Offsets count examples of the epoch.
    """

    def __init__(self, size: int, blocks: Blocks, seed: int, epoch: int):
        self._block, self._open = blocks.size, blocks.open
        self._slots = -(-size // blocks.size)
        self._lacking = self._slots * blocks.size - size  # examples that the short block lacks
        self._block_key = _epoch_key(seed, epoch, _MANY_ROUNDS)
        last = np.array([self._slots - 1])
        short = permute(last, size=self._slots, key=self._block_key, inverse=True)
        self._short_slot = int(short[0])
        words = np.random.SeedSequence([seed, epoch, _WINDOW_KEY]).generate_state(1, np.uint64)
        self._window_key = words[0]

    def indices(self, offset_N: np.ndarray) -> np.ndarray:
        first_N, end_N = self.window(offset_N)
        window_N = self._slot(offset_N) // self._open
        words_NxR = rng.streams(rng.mix64(window_N.astype(np.uint64) ^ self._window_key), ROUNDS)
        key_RxN = words_NxR.T & np.uint64(0xFFFFFFFF)
        length_N = end_N - first_N
        offset_N = offset_N.copy()
        # At most four lengths: the last window is shorter, and so is that with the short block.
        for length in np.unique(length_N).tolist():
            rows = np.flatnonzero(length_N == length)
            inside_M = offset_N[rows] - first_N[rows]
            inside_M = permute(inside_M, size=length, key=key_RxN[:, rows])
            offset_N[rows] = first_N[rows] + inside_M
        slot_N = self._slot(offset_N)
        block_N = permute(slot_N, size=self._slots, key=self._block_key)
        return block_N * self._block + offset_N - self._start(slot_N)

    def window(self, offset_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first offset of the window that each offset is in, and that after its end."""
        slot_N = self._slot(offset_N) // self._open * self._open
        return self._start(slot_N), self._start(np.minimum(slot_N + self._open, self._slots))

    def _start(self, slot_N: np.ndarray) -> np.ndarray:
        return slot_N * self._block - self._lacking * (slot_N > self._short_slot)

    def _slot(self, offset_N: np.ndarray) -> np.ndarray:
        after_short = (self._short_slot + 1) * self._block - self._lacking
        return (offset_N + self._lacking * (offset_N >= after_short)) // self._block


def _epoch_key(seed: int, epoch: int, rounds: int) -> np.ndarray:
    return np.random.SeedSequence([seed, epoch]).generate_state(rounds, np.uint32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """The order of a run's examples, which are of one data set or of several.

    The indices of several sets follow one another: those of the second begin at the size of the
    first.

    Arguments:
      sets: the order of each set.
      weights: a set has `weight` of each `sum(weights)` positions.
    """

    sets: tuple[SetOrder, ...]
    weights: tuple[int, ...]
    seed: int

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        *,
        seed: int,
        weights: Sequence[int] = (1,),
        kind: Global | Blocks | None = None,
    ) -> Order:
        """The order of sets of these sizes, all with the same seed."""
        sets = (SetOrder(size=size, seed=seed, kind=kind or Global()) for size in sizes)
        return cls(sets=tuple(sets), weights=tuple(weights), seed=seed)

    def indices(self, position_N: np.ndarray) -> np.ndarray:
        """The examples at some positions of the stream, int64 N."""
        if len(self.sets) == 1:
            return self.sets[0].indices(position_N)
        set_N, rank_N = self.ranks(position_N)
        first, index_N = 0, np.empty_like(rank_N)
        for k, order in enumerate(self.sets):
            rows = np.flatnonzero(set_N == k)
            index_N[rows] = first + order.indices(rank_N[rows])
            first += order.size
        return index_N

    def ranks(self, position_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The set of each position, and the position in the stream of this set alone."""
        position_N = np.asarray(position_N, np.int64)
        if len(self.sets) == 1:
            return np.zeros_like(position_N), position_N
        ends_S = np.cumsum(self.weights)
        cycle_N, offset_N = np.divmod(position_N, ends_S[-1])
        place_N = permute(offset_N, size=int(ends_S[-1]), key=self._cycle_keys(cycle_N))
        set_N = np.searchsorted(ends_S, place_N, side="right")
        weight_S = np.asarray(self.weights)
        return set_N, cycle_N * weight_S[set_N] + place_N - (ends_S - weight_S)[set_N]

    def positions(self, k: int, rank_N: np.ndarray) -> np.ndarray:
        """The positions in the stream of set `k`'s examples, by position in its own stream."""
        if len(self.sets) == 1:
            return rank_N
        cycle_N, place_N = np.divmod(rank_N, self.weights[k])
        place_N = place_N + sum(self.weights[:k])
        cycle = sum(self.weights)
        key_RxN = self._cycle_keys(cycle_N)
        return cycle_N * cycle + permute(place_N, size=cycle, key=key_RxN, inverse=True)

    def rank_before(self, k: int, position: int) -> int:
        """The first of set `k`'s own positions in the cycle that `position` is in."""
        return position // sum(self.weights) * self.weights[k]

    def rank_after(self, k: int, position: int) -> int:
        """The first of set `k`'s own positions after the cycle that `position - 1` is in."""
        return -(-position // sum(self.weights)) * self.weights[k]

    def counts(self, position: int) -> list[int]:
        """How many of the first `position` examples are of each set."""
        cycles, rest = divmod(position, sum(self.weights))
        set_N, _ = self.ranks(np.arange(position - rest, position))
        counts_S = np.bincount(set_N, minlength=len(self.sets))
        return (cycles * np.asarray(self.weights) + counts_S).tolist()

    def _cycle_keys(self, cycle_N: np.ndarray) -> np.ndarray:
        word = np.random.SeedSequence([self.seed, 0, _MIX_KEY]).generate_state(1, np.uint64)[0]
        words_NxR = rng.streams(rng.mix64(cycle_N.astype(np.uint64) ^ word), _MANY_ROUNDS)
        return words_NxR.T & np.uint64(0xFFFFFFFF)
