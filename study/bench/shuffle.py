"""How well an order shuffles, and what it costs to read, by simulation.

    python -m study.bench.shuffle    # prints the tables of results/bench/shuffle.md

Orders are compared with those of loaders that have a buffer: webdataset and tf.data.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from study.config import Blocks, Global
from study.data.order import Order
from study.data.ranges import coalesce
from study.data.stream import Lookahead

NEAR = 16  # neighbours: examples at most this far apart in the data
_EXAMPLES, _SHARD = 1 << 20, 8192  # of the simulated data set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """How well an epoch is shuffled.

    Attributes:
      distances: between positions in the stream of two examples that follow one another in the
        data: the 1st, 10th and 50th percentile.
      with_neighbour: share of the examples of a batch that have one of their `NEAR` neighbours on
        either side in the same batch.
      shards: distinct shards in a batch, on average.
    """

    distances: tuple[float, float, float]
    with_neighbour: float
    shards: float


def quality(index_N: np.ndarray, *, batch_size: int, shard: int) -> Quality:
    """The quality of an epoch's order.

    Arguments:
      index_N: a permutation of range(N): the example at each position.
      shard: examples per shard.
    """
    position_N = np.argsort(index_N)
    low, tenth, median = np.quantile(np.abs(np.diff(position_N)), (0.01, 0.1, 0.5)).tolist()
    batches = len(index_N) // batch_size
    batch_N = position_N // batch_size
    beside_N = np.zeros(len(index_N), bool)
    for apart in range(1, NEAR + 1):
        same = batch_N[apart:] == batch_N[:-apart]
        beside_N[apart:] |= same
        beside_N[:-apart] |= same
    shard_BxN = np.sort(index_N[: batches * batch_size].reshape(batches, -1) // shard, axis=1)
    return Quality(
        distances=(low, tenth, median),
        with_neighbour=float(beside_N[batch_N < batches].mean()),
        shards=1 + float((np.diff(shard_BxN, axis=1) > 0).sum(1).mean()),
    )


# --- other orders ---------------------------------------------------------------------------------


def webdataset_order(size: int, *, shard: int, buffer: int, initial: int = 100) -> np.ndarray:
    """One worker's order: whole shards shuffled, then `.shuffle(buffer)` over their examples.

    The buffer takes two examples for each one that it hands over until it is full.
    """
    rng = np.random.default_rng(0)
    examples = _shards(size, shard, rng)
    draws = iter(rng.random(size).tolist())
    out, held = [], []
    for example in examples:
        held.append(example)
        if len(held) < buffer:
            held.extend([following] if (following := next(examples, None)) is not None else [])
        if len(held) >= min(initial, buffer):
            out.append(_take(held, next(draws)))
    while held:
        out.append(_take(held, next(draws)))
    return np.array(out)


def tf_data_order(
    size: int, *, shard: int, buffer: int, cycle: int = 16, block: int = 16
) -> np.ndarray:
    """Shuffled files, `cycle` of them interleaved in runs of `block`, then `.shuffle(buffer)`."""
    rng = np.random.default_rng(0)
    files = _files(size, shard, rng)
    opened = [iter(file) for file in itertools.islice(files, cycle)]
    draws = iter(rng.random(size).tolist())
    out, held = [], []
    for example in _interleave(opened, files, block):
        held.append(example)
        if len(held) > buffer:
            out.append(_take(held, next(draws)))
    while held:
        out.append(_take(held, next(draws)))
    return np.array(out)


def _files(size: int, shard: int, rng: np.random.Generator) -> Iterator[range]:
    starts = rng.permutation(np.arange(0, size, shard)).tolist()
    return (range(start, min(start + shard, size)) for start in starts)


def _shards(size: int, shard: int, rng: np.random.Generator) -> Iterator[int]:
    return (example for file in _files(size, shard, rng) for example in file)


def _interleave(opened: list[Iterator[int]], files: Iterator[range], block: int) -> Iterator[int]:
    at = 0
    while opened:
        at %= len(opened)
        run = list(itertools.islice(opened[at], block))
        yield from run
        if len(run) == block:
            at += 1
        elif (file := next(files, None)) is not None:
            opened[at] = iter(file)
        else:
            del opened[at]


def _take(held: list[int], draw: float) -> int:
    """Removes a random element; `draw` is uniform in [0, 1)."""
    k = int(draw * len(held))
    held[k], held[-1] = held[-1], held[k]
    return held.pop()


# --- what a host reads ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reads:
    """Of one host, per example that it trains on: bytes read per byte used, and requests."""

    bytes_per_byte: float
    requests: float


class _Hints:
    """A source that only keeps what it is asked to prefetch."""

    replacements: Any = None

    def __init__(self, size: int):
        self.size = size
        self.hints: list[np.ndarray] = []

    def prefetch(self, index_N: np.ndarray) -> None:
        self.hints.append(index_N)

    def batch(self, index_N: np.ndarray) -> Any: ...

    def text(self, index_N: np.ndarray) -> Any: ...


def reads(
    kind: Blocks, *, hosts: int, rows: int, example_bytes: int, size: int = 4_000_000_123
) -> Reads:
    """What one of `hosts` reads from a bucket, if each trains `rows` examples of a batch.

    Examples are taken to be of equal size and stored one after another. Reads are joined as by
    `study.data.ranges.coalesce`. The steps are in the second epoch, whose windows begin at any row
    of a batch.
    """
    source, batch_size = _Hints(size), hosts * rows
    first, begin = hosts // 2 * rows, size // batch_size + 1
    stop = begin + max(4, -(-4 * kind.size * kind.open // batch_size))
    ahead = Lookahead(
        source,
        Order.of([size], seed=0, kind=kind),
        rows=np.arange(first, first + rows),
        batch_size=batch_size,
        origin=0,
        begin=begin,
        stop=stop,
    )
    ahead.prefetch(stop, stop)
    total = used = requests = 0
    for index_N in source.hints[1:-1]:  # the others are parts of windows
        runs = coalesce(index_N * example_bytes, np.full(len(index_N), example_bytes))
        total += sum(run.stop - run.start for run in runs)
        requests += len(runs)
        used += len(index_N)
    return Reads(bytes_per_byte=total / (used * example_bytes), requests=requests / used)


# --- tables ---------------------------------------------------------------------------------------


def _orders() -> Iterator[tuple[str, np.ndarray]]:
    kinds: list[Global | Blocks] = [Global()]
    kinds += [Blocks(size=b, open=o) for b, o in ((256, 64), (64, 16), (64, 256), (256, 1024))]
    for kind in kinds:
        name = f"blocks {kind.size} x {kind.open}" if isinstance(kind, Blocks) else "global"
        order = Order.of([_EXAMPLES], seed=0, kind=kind)
        yield name, order.indices(np.arange(_EXAMPLES))
    for buffer in (1000, 5000, 10_000):
        index_N = webdataset_order(_EXAMPLES, shard=_SHARD, buffer=buffer)
        yield f"webdataset, `.shuffle({buffer})`", index_N
    for buffer in (10_000, 50_000, 250_000):
        index_N = tf_data_order(_EXAMPLES, shard=_SHARD, buffer=buffer)
        yield f"tf.data, `.shuffle({buffer})`", index_N


def _print_quality() -> None:
    print("| order | 1 % | 10 % | 50 % | B = 1,024 | B = 32,768 | B = 1,024 | B = 32,768 |")
    print("|---|---|---|---|---|---|---|---|")
    for name, index_N in _orders():
        small, large = (quality(index_N, batch_size=b, shard=_SHARD) for b in (1024, 32_768))
        cells = [f"{distance:,.0f}" for distance in small.distances]
        cells += [f"{100 * one.with_neighbour:.0f} %" for one in (small, large)]
        cells += [f"{one.shards:.0f}" for one in (small, large)]
        print("|", " | ".join([name, *cells]), "|")


def _print_reads() -> None:
    rows = (64, 256, 1024, 4096, 32_768)
    print("| blocks | bytes | hosts |", " | ".join(f"{r:,}" for r in rows), "|")
    print("|---|---|---|" + "---|" * len(rows))
    for size, opened in ((256, 64), (64, 16), (16, 16)):
        for example_bytes in (2816, 30_000):
            for hosts in (1, 8, 32):
                each = [
                    reads(
                        Blocks(size=size, open=opened),
                        hosts=hosts,
                        rows=r,
                        example_bytes=example_bytes,
                    )
                    for r in rows
                ]
                cells = [f"{one.bytes_per_byte:.1f} ({1 / one.requests:.0f})" for one in each]
                name = f"{size} x {opened}"
                print("|", " | ".join([name, f"{example_bytes:,}", str(hosts), *cells]), "|")


if __name__ == "__main__":
    _print_quality()
    print()
    _print_reads()
