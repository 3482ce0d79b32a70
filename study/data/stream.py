"""The one data stream: example i of a run is a function of (data set, seed, i) and nothing else.

So all cells of a study see the same examples in the same order, whatever their batch size, loss,
number of hosts or restarts: step s at batch size B takes the examples [s * B, (s + 1) * B).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grain
import numpy as np

from study.data.replacements import Replacements

ROUNDS = 4
_COIN = 0xF11B  # keeps the coins of `mirrored` apart from the keys of epochs


class Source(Protocol):
    """What a data set split offers: its size, and any of its examples by index.

    replacements: which of them are replaced, as far as is known.
    """

    size: int
    replacements: Replacements

    def batch(self, index_N: np.ndarray) -> dict[str, np.ndarray]:
        """Examples by index: `image` N x ..., `text` int32 N x L; whoever asks may change them."""
        ...

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """Their texts alone."""
        ...


# Reads the examples at some positions of the stream, which are these of the source.
ReadFn = Callable[[Source, np.ndarray, np.ndarray], dict[str, np.ndarray]]


def indices(position_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Which examples of a split stand at these positions of the stream.

    Every `size` positions are an epoch: each example once, in an order of its own. Nothing is
    stored, so any position of a billion-example split costs the same.

    Arguments:
      position_N: int64, counted from the start of the run.
      size: examples in the split.
      seed: the cell's seed.
    """
    position_N = np.asarray(position_N, np.int64)
    epoch_N, within_N = np.divmod(position_N, size)
    out_N = np.empty_like(position_N)
    for epoch in np.unique(epoch_N):
        here = epoch_N == epoch
        out_N[here] = permute(within_N[here], size=size, key=_key(seed, int(epoch)))
    return out_N


def _key(seed: int, epoch: int) -> np.ndarray:
    return np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint32)


def permute(x_N: np.ndarray, *, size: int, key: np.ndarray, inverse: bool = False) -> np.ndarray:
    """A keyed permutation of range(size): a Feistel network that walks until it is back inside.

    Arguments:
      x_N: int64 in range(size).
      key: `ROUNDS`, or `ROUNDS x N` for a permutation of its own at each place; 32-bit words.
      inverse: the permutation that undoes it.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    x_N = x_N.astype(np.uint64)
    out_N = np.empty_like(x_N)
    todo = np.arange(len(x_N))
    key = key[::-1] if inverse else key
    while len(todo):
        left, right = x_N >> shift, x_N & mask
        for k in key:
            if inverse:
                left, right = right ^ (_mix(left, k) & mask), left
            else:
                left, right = right, left ^ (_mix(right, k) & mask)
        x_N = (left << shift) | right
        inside = x_N < size
        out_N[todo[inside]] = x_N[inside]
        x_N, todo = x_N[~inside], todo[~inside]
        if key.ndim == 2:
            key = key[:, ~inside]
    return out_N.astype(np.int64)


def _mix(x: np.ndarray, key: Any) -> np.ndarray:
    """A keyed mix of 32-bit words held in uint64 (the murmur3 finaliser)."""
    low = np.uint64(0xFFFFFFFF)
    x = (x ^ np.asarray(key, np.uint64)) & low
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & low
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & low
    return x ^ (x >> np.uint64(16))


def batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    first_step: int,
    chunks: list[int],
    rows: np.ndarray | None = None,
    read: ReadFn | None = None,
    flip: bool = False,
    on_replaced: Callable[[int], None] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The stream from `first_step` on, `chunks[k]` steps at a time.

    Grain reads one piece ahead in a thread of its own. Its unit is the piece, not the example:
    one example at a time it delivers about 14,000 a second, and a SigLiT step takes 60,000.

    Arguments:
      chunks: lengths, in steps, of the successive pieces.
      rows: which rows of each batch, int64 `R`: those that a host's devices hold; None is all.
      read: stands between source and stream where data are corrupted (`study.data.corruption`).
      flip: mirror images left to right or not, as (seed, i) decides.
      on_replaced: called with the number of replaced examples of each piece. None where
        what is read is no part of the run, and is not counted.

    Yields dicts of arrays `chunk x R x ...`.
    """
    row_R = np.arange(batch_size) if rows is None else rows
    starts = first_step + np.cumsum([0, *chunks])

    def piece(k: int) -> tuple[dict[str, np.ndarray], int]:
        steps = starts[k] + np.arange(chunks[k])
        position_N = (steps[:, None] * batch_size + row_R).ravel()
        index_N = indices(position_N, size=source.size, seed=seed)
        arrays = read(source, position_N, index_N) if read else source.batch(index_N)
        if flip:
            arrays["image"] = random_flip(arrays["image"], position_N, seed=seed)
        pieces = {n: a.reshape(len(steps), len(row_R), *a.shape[1:]) for n, a in arrays.items()}
        return pieces, source.replacements.count_read(index_N) if on_replaced is not None else 0

    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    for arrays, count in grain.MapDataset.range(len(chunks)).map(piece).to_iter_dataset(ahead):
        if on_replaced is not None:
            on_replaced(count)
        yield arrays


def random_flip(image_NxHxWxC: np.ndarray, position_N: np.ndarray, *, seed: int) -> np.ndarray:
    """Every image mirrored left to right or not, by a coin that its position in the run tosses."""
    key = np.random.SeedSequence([seed, 0, _COIN]).generate_state(2, np.uint32)
    word_N = np.asarray(position_N).astype(np.uint64)
    # Above 2^32 a position is more than one word.
    coin_N = _mix(_mix(word_N >> np.uint64(32), key[0]) ^ word_N, key[1]) & np.uint64(1)
    turned_N = coin_N.astype(bool)
    out_NxHxWxC = image_NxHxWxC.copy()
    out_NxHxWxC[turned_N] = image_NxHxWxC[turned_N, :, ::-1]
    return out_NxHxWxC
