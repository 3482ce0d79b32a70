"""The one data stream: example i of a run is a function of (data set, seed, i) and nothing else.

So all cells of a study see the same examples in the same order, whatever their batch size, loss,
number of hosts or restarts: step s at batch size B takes the examples [s * B, (s + 1) * B).
`study.data.order` says which example is at position i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import grain
import numpy as np

from study.config.data import Blocks
from study.data.order import Order
from study.data.permute import mix32

_FLIP_KEY = 0xF11B  # keeps the random bits of `random_flip` apart from the keys of epochs


class Replaced(Protocol):
    """Counts the examples that were replaced; see `study.data.replacements.Replacements`."""

    def count_read(self, index_N: np.ndarray) -> int: ...

    def resolve(self, index_N: np.ndarray) -> np.ndarray: ...

    def resume(self, read: float, replaced: float) -> None: ...


class Source(Protocol):
    """The examples of a split by index, or those of several splits, one after another."""

    size: int

    @property
    def replacements(self) -> Replaced: ...

    def batch(self, index_N: np.ndarray) -> dict[str, np.ndarray]:
        """`image` N x ... and `text` int32 N x L, as new arrays that the caller may change."""
        ...

    def text(self, index_N: np.ndarray) -> np.ndarray:
        """`text` alone."""
        ...

    def prefetch(self, index_N: np.ndarray) -> None:
        """A hint: these examples are read soon, each once, and may be fetched in long runs.

        The stream gives it ahead of reading, see `Lookahead`. What was fetched and read may be
        dropped; what was not fetched must still be readable. A source on a local disk does nothing.
        """


# read(source, order, position_N, index_N) reads the examples `index_N`, which are at these
# positions of the stream. `study.data.corruption` makes one.
ReadFn = Callable[[Source, Order, np.ndarray, np.ndarray], dict[str, np.ndarray]]


def with_classes(class_N: np.ndarray, read: ReadFn | None) -> ReadFn:
    """Reads `class` as well: that of the example itself, or of the one that replaces it.

    Arguments:
      class_N: of all examples of the source.
      read: what reads the examples; None reads them as they are.
    """

    def read_both(
        source: Source, order: Order, position_N: np.ndarray, index_N: np.ndarray
    ) -> dict[str, np.ndarray]:
        arrays = read(source, order, position_N, index_N) if read else source.batch(index_N)
        return arrays | {"class": class_N[source.replacements.resolve(index_N)]}

    return read_both


def batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    first_step: int,
    chunks: list[int],
    origin: int = 0,
    order: Order | None = None,
    rows: np.ndarray | None = None,
    read: ReadFn | None = None,
    flip: bool = False,
    on_replaced: Callable[[list[int]], None] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The stream from `first_step` on, in chunks of several steps, read one chunk ahead.

    Arguments:
      chunks: number of steps in each chunk.
      origin: the position in the stream at which step 0 begins; above 0 for a branch.
      order: of the examples; None is the global one by `seed`.
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
    order = order or Order.of([source.size], seed=seed)
    row_R = np.arange(batch_size) if rows is None else rows
    starts = first_step + np.cumsum([0, *chunks])
    ahead = Lookahead(
        source,
        order,
        rows=row_R,
        batch_size=batch_size,
        origin=origin,
        begin=starts[0],
        stop=starts[-1],
    )

    def read_chunk(k: int) -> tuple[dict[str, np.ndarray], list[int]]:
        ahead.prefetch(starts[k + 1], starts[min(k + 2, len(chunks))])
        steps = starts[k] + np.arange(chunks[k])
        position_N = origin + (steps[:, None] * batch_size + row_R).ravel()
        index_N = order.indices(position_N)
        arrays = read(source, order, position_N, index_N) if read else source.batch(index_N)
        if flip:
            arrays["image"] = random_flip(arrays["image"], position_N, seed=seed)
        chunk = {n: a.reshape(chunks[k], len(row_R), *a.shape[1:]) for n, a in arrays.items()}
        if on_replaced is None:
            return chunk, []
        each_step = index_N.reshape(chunks[k], len(row_R))
        return chunk, [source.replacements.count_read(index_R) for index_R in each_step]

    # An element of the Grain pipeline is a chunk: example by example Grain delivers about 14,000
    # a second, and a SigLiT run takes 60,000.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    pipeline = grain.MapDataset.range(len(chunks)).map(read_chunk).to_iter_dataset(options)
    for arrays, replaced in pipeline:
        if on_replaced is not None:
            on_replaced(replaced)
        yield arrays


class Lookahead:
    """Tells a source which examples this host reads next, each once.

    In global order that is the next chunk while a chunk is read. In blocks order it is a window of
    open blocks at a time, up to the one after that in which the chunk ends: a source that fetches
    them holds two windows of this host's rows and a chunk.

    A host needs only its own rows of a window. While they are many, those that belong to other
    hosts lie in short gaps between them, and are read too (`study.bench.shuffle` says how many
    bytes that costs).

    Arguments:
      rows: the rows of each batch that this host reads, int64 R.
      origin: the position in the stream at which step 0 begins.
      begin, stop: the first step to read, and the one to end before.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        *,
        rows: np.ndarray,
        batch_size: int,
        origin: int,
        begin: int,
        stop: int,
    ):
        self._source, self._order, self._row_R, self._batch_size = source, order, rows, batch_size
        self._origin = origin
        self._begin, self._stop = origin + begin * batch_size, origin + stop * batch_size
        self._own_B = np.isin(np.arange(batch_size), rows)
        self._step = begin
        self._rank_S = [order.rank_before(k, self._begin) for k in range(len(order.sets))]

    def prefetch(self, stop: int, next_stop: int) -> None:
        """Called before the steps up to `stop` are read; those up to `next_stop` follow them."""
        if isinstance(self._order.sets[0].kind, Blocks):
            for k in range(len(self._order.sets)):
                self._prefetch_windows(k, self._origin + stop * self._batch_size)
            return
        for end in (stop, next_stop):
            if end > self._step:
                steps = np.arange(self._step, end)
                position_N = (steps[:, None] * self._batch_size + self._row_R).ravel()
                position_N += self._origin
                self._source.prefetch(self._order.indices(position_N))
                self._step = end

    def _prefetch_windows(self, k: int, position: int) -> None:
        """The windows of set `k` up to the one after that of the example before `position`."""
        order, all_sets = self._order.sets[k], self._order
        until = order.window_end(order.window_end(all_sets.rank_after(k, position) - 1))
        until = min(until, all_sets.rank_after(k, self._stop))
        while self._rank_S[k] < until:
            end = order.window_end(self._rank_S[k])
            position_N = all_sets.positions(k, np.arange(self._rank_S[k], end))
            own_N = self._own_B[(position_N - self._origin) % self._batch_size]
            own_N &= (position_N >= self._begin) & (position_N < self._stop)
            self._source.prefetch(all_sets.indices(position_N[own_N]))
            self._rank_S[k] = end


def random_flip(image_NxHxWxC: np.ndarray, position_N: np.ndarray, *, seed: int) -> np.ndarray:
    """Mirrors half of the images left to right, chosen by seed and position in the stream."""
    key = np.random.SeedSequence([seed, 0, _FLIP_KEY]).generate_state(2, np.uint32)
    word_N = np.asarray(position_N).astype(np.uint64)
    # Two rounds, because a position above 2^32 has two words.
    bit_N = mix32(mix32(word_N >> np.uint64(32), key[0]) ^ word_N, key[1]) & np.uint64(1)
    flip_N = bit_N.astype(bool)
    out_NxHxWxC = image_NxHxWxC.copy()
    out_NxHxWxC[flip_N] = image_NxHxWxC[flip_N, :, ::-1]
    return out_NxHxWxC
