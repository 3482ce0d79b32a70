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
_FLIP_KEY = 0xF11B  # keeps the random bits of `random_flip` apart from the keys of epochs


class Source(Protocol):
    """The examples of a split by index."""

    size: int
    replacements: Replacements

    def batch(self, index_N: np.ndarray) -> dict[str, np.ndarray]:
        """`image` N x ... and `text` int32 N x L, as new arrays that the caller may change."""
        ...

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """`text` alone."""
        ...

    def prefetch(self, index_N: np.ndarray) -> None:
        """A hint: these examples are read soon, each once, and may be fetched in long runs.

        The stream gives it one chunk ahead of reading. What was fetched and read may be dropped;
        what was not fetched must still be readable. A source on a local disk does nothing.
        """


# read(source, position_N, index_N) reads the examples `index_N`, which are at these positions of
# the stream. `study.data.corruption` makes one.
ReadFn = Callable[[Source, np.ndarray, np.ndarray], dict[str, np.ndarray]]


def indices(position_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """The examples at some positions of the stream.

    Every `size` positions are an epoch, which has each example once, in its own order. Nothing is
    stored, so any position of a billion-example split costs the same.

    Arguments:
      position_N: int64, counted from the start of the run.
      size: number of examples in the split.
      seed: the cell's seed.

    Returns:
      Indices into the split, int64 N.
    """
    position_N = np.asarray(position_N, np.int64)
    epoch_N, offset_N = np.divmod(position_N, size)
    out_N = np.empty_like(position_N)
    for epoch in np.unique(epoch_N):
        mask_N = epoch_N == epoch
        key = np.random.SeedSequence([seed, int(epoch)]).generate_state(ROUNDS, np.uint32)
        out_N[mask_N] = permute(offset_N[mask_N], size=size, key=key)
    return out_N


def permute(x_N: np.ndarray, *, size: int, key: np.ndarray, inverse: bool = False) -> np.ndarray:
    """A keyed pseudo-random permutation of range(size): a Feistel network with cycle walking.

    Arguments:
      x_N: int64 in range(size).
      key: 32-bit words, `ROUNDS`, or `ROUNDS x N` for one permutation per element.
      inverse: apply the inverse permutation.
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
                left, right = right ^ (_mix32(left, k) & mask), left
            else:
                left, right = right, left ^ (_mix32(right, k) & mask)
        x_N = (left << shift) | right
        # The network permutes a power of 4, at most 4 times the size: values outside go again.
        inside = x_N < size
        out_N[todo[inside]] = x_N[inside]
        x_N, todo = x_N[~inside], todo[~inside]
        if key.ndim == 2:
            key = key[:, ~inside]
    return out_N.astype(np.int64)


def _mix32(x: np.ndarray, key: Any) -> np.ndarray:
    """A keyed mix of 32-bit words held in uint64 (the finalizer of murmur3)."""
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
    on_replaced: Callable[[list[int]], None] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The stream from `first_step` on, in chunks of several steps, read one chunk ahead.

    Arguments:
      chunks: number of steps in each chunk.
      rows: the rows of each batch that this host needs, int64 R; None is all.
      read: reads the examples, corrupted; None reads them as they are.
      flip: mirror each image left to right or not, as (seed, i) decides.
      on_replaced: called with the numbers of replaced examples in the steps of each chunk. None
        does not count them, for reads that are not part of a run.

    Yields:
      Dicts of arrays `steps x R x ...`.

    Raises:
      DataError: a shard that cannot be read, or too many bad examples.
    """
    row_R = np.arange(batch_size) if rows is None else rows
    starts = first_step + np.cumsum([0, *chunks])

    def positions(k: int) -> np.ndarray:
        steps = starts[k] + np.arange(chunks[k])
        return (steps[:, None] * batch_size + row_R).ravel()

    def prefetch(k: int) -> None:
        source.prefetch(indices(positions(k), size=source.size, seed=seed))

    def read_chunk(k: int) -> tuple[dict[str, np.ndarray], list[int]]:
        if k == 0:
            prefetch(k)
        if k + 1 < len(chunks):
            prefetch(k + 1)
        position_N = positions(k)
        index_N = indices(position_N, size=source.size, seed=seed)
        arrays = read(source, position_N, index_N) if read else source.batch(index_N)
        if flip:
            arrays["image"] = random_flip(arrays["image"], position_N, seed=seed)
        chunk = {n: a.reshape(chunks[k], len(row_R), *a.shape[1:]) for n, a in arrays.items()}
        if on_replaced is None:
            return chunk, []
        each_step = index_N.reshape(chunks[k], len(row_R))
        return chunk, [source.replacements.count_read(index_R) for index_R in each_step]

    # An element of the Grain pipeline is a chunk: example by example Grain delivers about 14,000
    # a second, and a SigLiT run takes 60,000.
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    pipeline = grain.MapDataset.range(len(chunks)).map(read_chunk).to_iter_dataset(ahead)
    for arrays, replaced in pipeline:
        if on_replaced is not None:
            on_replaced(replaced)
        yield arrays


def random_flip(image_NxHxWxC: np.ndarray, position_N: np.ndarray, *, seed: int) -> np.ndarray:
    """Mirrors half of the images left to right, chosen by seed and position in the stream."""
    key = np.random.SeedSequence([seed, 0, _FLIP_KEY]).generate_state(2, np.uint32)
    word_N = np.asarray(position_N).astype(np.uint64)
    # Two rounds, because a position above 2^32 has two words.
    bit_N = _mix32(_mix32(word_N >> np.uint64(32), key[0]) ^ word_N, key[1]) & np.uint64(1)
    flip_N = bit_N.astype(bool)
    out_NxHxWxC = image_NxHxWxC.copy()
    out_NxHxWxC[flip_N] = image_NxHxWxC[flip_N, :, ::-1]
    return out_NxHxWxC
