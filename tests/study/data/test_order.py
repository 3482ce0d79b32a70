"""Every order is a permutation of each epoch, in blocks and in mixes of several data sets too."""

from __future__ import annotations

import numpy as np
import pytest

from study.config import Blocks, Global
from study.data.order import Order, SetOrder, indices
from study.data.stream import batches


def random_blocks(count=40):
    rng = np.random.default_rng(0)
    for _ in range(count):
        size = int(rng.integers(1, 3000))
        yield size, Blocks(size=int(rng.integers(1, size + 40)), open=int(rng.integers(1, 12)))


SOME = [
    (1, Blocks(size=1, open=1)),
    (1, Blocks(size=7, open=3)),
    (100, Blocks(size=100, open=1)),
    (100, Blocks(size=1000, open=4)),  # a block larger than the data
    (101, Blocks(size=10, open=100)),  # a window larger than the data, and a block of one
    *random_blocks(),
]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 4097])
def test_every_epoch_is_a_permutation_of_its_own(size):
    first = indices(np.arange(size), size=size, seed=0)
    second = indices(np.arange(size, 2 * size), size=size, seed=0)
    np.testing.assert_array_equal(np.sort(first), np.arange(size))
    np.testing.assert_array_equal(np.sort(second), np.arange(size))
    if size > 9:
        assert (first != second).any()
        assert (first != indices(np.arange(size), size=size, seed=1)).any()


def test_every_epoch_of_blocks_is_a_permutation_by_windows_of_open_blocks():
    rng = np.random.default_rng(1)
    for size, blocks in SOME:
        order = SetOrder(size=size, seed=3, kind=blocks)
        index_N = order.indices(np.arange(2 * size))
        for epoch_N in np.split(index_N, 2):
            np.testing.assert_array_equal(np.sort(epoch_N), np.arange(size))
        start = 0
        while start < 2 * size:
            end = order.window_end(start)
            assert {order.window_end(p) for p in (start, (start + end) // 2, end - 1)} == {end}
            opened = np.unique(index_N[start:end] // blocks.size)
            assert len(opened) == blocks.open or end % size == 0
            # Each open block is there as a whole.
            lengths = np.minimum(size, (opened + 1) * blocks.size) - opened * blocks.size
            assert lengths.sum() == end - start
            start = end
        assert start == 2 * size
        at = rng.integers(0, 2 * size, 20)
        np.testing.assert_array_equal(order.indices(at), index_N[at])


def test_epochs_seeds_and_windows_of_blocks_have_orders_of_their_own():
    blocks = Blocks(size=16, open=4)
    one, two = np.split(SetOrder(size=1024, seed=0, kind=blocks).indices(np.arange(2048)), 2)
    other = SetOrder(size=1024, seed=1, kind=blocks).indices(np.arange(1024))
    assert (one != two).mean() > 0.9 < (one != other).mean()
    inside_WxP = np.stack([np.argsort(np.argsort(window)) for window in np.split(one, 16)])
    assert len(np.unique(inside_WxP, axis=0)) == 16


@pytest.mark.parametrize("kind", [Global(), Blocks()], ids=lambda kind: kind.kind)
def test_any_position_of_four_billion_examples(kind):
    size = 4_000_000_123
    order = SetOrder(size=size, seed=3, kind=kind)
    for first in (0, 10**9, size - 2500, 18 * 10**9):  # the third runs into the second epoch
        index_N = order.indices(np.arange(first, first + 5000))
        assert len(np.unique(index_N)) == 5000
        assert index_N.min() >= 0 and index_N.max() < size
    spread_N = order.indices(np.arange(0, 18 * 10**9, 3_600_007))
    assert abs(spread_N.mean() / size - 0.5) < 0.02


def test_neighbours_are_uncorrelated():
    index_N = indices(np.arange(20_000), size=20_000, seed=0)
    assert abs(np.corrcoef(index_N[:-1], index_N[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(index_N, np.arange(20_000))[0, 1]) < 0.03


# --- several data sets ----------------------------------------------------------------------------

WEIGHTS = [(1, 1), (3, 1), (5, 2, 3), (1, 999), (400, 300, 1)]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("kind", [Global(), Blocks(size=9, open=3)], ids=lambda kind: kind.kind)
def test_every_cycle_of_a_mix_has_each_set_as_its_weight_says(weights, kind):
    sizes = [50, 301, 7][: len(weights)]
    order = Order.of(sizes, seed=5, weights=weights, kind=kind)
    cycle, cycles = sum(weights), 4
    position_N = np.arange(cycles * cycle)
    set_N, rank_N = order.ranks(position_N)
    first_S = np.cumsum([0, *sizes])
    index_N = order.indices(position_N)
    for k, weight in enumerate(weights):
        assert {(part == k).sum() for part in np.split(set_N, cycles)} == {weight}
        own = set_N == k
        np.testing.assert_array_equal(np.sort(rank_N[own]), np.arange(cycles * weight))
        np.testing.assert_array_equal(order.positions(k, rank_N[own]), position_N[own])
        # As the set is read alone, so each of its epochs has every example once.
        alone_N = order.sets[k].indices(rank_N[own])
        np.testing.assert_array_equal(index_N[own] - first_S[k], alone_N)
    for stop in (0, 1, cycle // 2, cycle, 3 * cycle + 1):
        assert order.counts(stop) == np.bincount(set_N[:stop], minlength=len(sizes)).tolist()


def test_cycles_of_a_mix_differ_and_depend_on_the_seed():
    def sets(seed):
        order = Order.of([10, 10], seed=seed, weights=(8, 8))
        return order.ranks(np.arange(1600))[0].reshape(100, 16)

    one, other = sets(0), sets(1)
    assert len(np.unique(one, axis=0)) > 97  # of 12,870, so two in a hundred may agree
    assert (one != other).any()


@pytest.mark.parametrize("weights", [(1, 1), (2, 1), (3, 2), (1, 7)], ids=str)
def test_no_row_of_a_batch_prefers_a_set_even_in_short_cycles(weights):
    order = Order.of([10, 10], seed=0, weights=weights)
    cycle, count = sum(weights), 10_000
    second_CxL = order.ranks(np.arange(count * cycle))[0].reshape(count, cycle)
    share = weights[1] / cycle
    assert abs(second_CxL.mean(0) - share).max() < 4 * (share * (1 - share) / count) ** 0.5


def test_any_position_of_a_mix_of_billions():
    order = Order.of([4 * 10**9, 10**6], seed=0, weights=(4000, 1), kind=Blocks())
    position_N = np.arange(18 * 10**9, 18 * 10**9 + 4001 * 2)
    set_N, rank_N = order.ranks(position_N)
    for k in (0, 1):
        own = set_N == k
        np.testing.assert_array_equal(order.positions(k, rank_N[own]), position_N[own])
    assert order.indices(position_N).max() < order.sets[0].size + order.sets[1].size


# --- the stream -----------------------------------------------------------------------------------


class Whole:
    """Hands over indices, and keeps what it was told to prefetch."""

    def __init__(self, size):
        self.size, self.hints, self.open, self.most = size, [], [], 0

    def prefetch(self, index_N):
        self.hints.append(index_N.tolist())
        self.open += index_N.tolist()
        self.most = max(self.most, len(self.open))

    def batch(self, index_N):
        for index in index_N.tolist():
            self.open.remove(index)  # raises if it was not prefetched
        return {"text": np.array(index_N)}


def read(order, *, batch_size, first, stop, chunk, rows=None, origin=0):
    """The rows of some steps, and the source that they were read from."""
    source = Whole(sum(one.size for one in order.sets))
    lengths = [min(chunk, stop - start) for start in range(first, stop, chunk)]
    parts = batches(
        source,
        seed=order.seed,
        batch_size=batch_size,
        first_step=first,
        chunks=lengths,
        origin=origin,
        order=order,
        rows=rows,
    )
    return np.concatenate([part["text"] for part in parts]), source


BLOCKS = Blocks(size=8, open=4)
ORDERS = {
    "global": Order.of([203], seed=5),
    "blocks": Order.of([203], seed=5, kind=BLOCKS),
    "mix": Order.of([203, 90], seed=5, weights=(5, 3)),
    "mix of blocks": Order.of([203, 90], seed=5, weights=(5, 3), kind=BLOCKS),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("chunk", [1, 4])
def test_the_same_at_every_batch_size_host_count_and_restart(name, chunk):
    order = ORDERS[name]
    whole = order.indices(np.arange(480))
    for batch_size in (16, 60, 240):
        got, source = read(
            order, batch_size=batch_size, first=0, stop=480 // batch_size, chunk=chunk
        )
        np.testing.assert_array_equal(got.ravel(), whole)
        assert source.open == []  # read once, and nothing else was fetched
    late, source = read(order, batch_size=16, first=11, stop=30, chunk=chunk)
    np.testing.assert_array_equal(late.ravel(), whole[11 * 16 :])
    assert source.open == []
    parts = [read(order, batch_size=16, first=3, stop=30, chunk=chunk, rows=rows)
             for rows in (np.arange(5), np.arange(5, 6), np.arange(6, 16))]  # fmt: skip
    hosts = np.concatenate([got for got, _ in parts], axis=1)
    np.testing.assert_array_equal(hosts.ravel(), whole[3 * 16 :])
    assert all(source.open == [] for _, source in parts)


@pytest.mark.parametrize("name", ORDERS)
def test_a_branch_goes_on_where_its_parent_was(name):
    """From position 48 at another batch size, on two hosts."""
    order = ORDERS[name]
    whole = order.indices(np.arange(480))
    parts = [
        read(order, batch_size=24, first=1, stop=18, chunk=3, rows=rows, origin=48)
        for rows in (np.arange(7), np.arange(7, 24))
    ]
    hosts = np.concatenate([got for got, _ in parts], axis=1)
    np.testing.assert_array_equal(hosts.ravel(), whole[48 + 24 :])
    assert all(source.open == [] for _, source in parts)


def test_two_windows_of_a_hosts_rows_are_held_at_most():
    order = ORDERS["blocks"]
    window = BLOCKS.size * BLOCKS.open
    _, source = read(order, batch_size=16, first=0, stop=40, chunk=1, rows=np.arange(4))
    assert source.most <= (2 * window + 16) // 4  # and a chunk, which may end in the next window
    # A hint is a whole window: all rows of this host in it.
    assert len(source.hints) == len({order.sets[0].window_end(p) for p in range(640)})
    _, source = read(ORDERS["mix of blocks"], batch_size=16, first=0, stop=40, chunk=1)
    assert source.most <= 2 * (2 * window + 16)


def test_in_global_order_the_next_chunk_is_fetched():
    _, source = read(
        ORDERS["global"], batch_size=8, first=2, stop=10, chunk=3, rows=np.arange(2, 5)
    )
    assert [len(hint) for hint in source.hints] == [9, 9, 6]
    assert source.most == 18
