"""The measures of a shuffle on orders whose values are known, and the orders of other loaders."""

from __future__ import annotations

import numpy as np
import pytest

from study.bench.shuffle import quality, reads, tf_data_order, webdataset_order
from study.config import Blocks
from study.data.order import indices

SIZE, SHARD = 4096, 256


def test_the_measures_of_no_shuffle_and_of_a_full_one():
    whole = quality(np.arange(SIZE), batch_size=64, shard=SHARD)
    assert (whole.distances, whole.with_neighbour, whole.shards) == ((1, 1, 1), 1, 1)
    # Neighbours 2,048 apart in the stream, and batches of two shards.
    far = quality(np.arange(SIZE).reshape(2, -1).T.ravel(), batch_size=64, shard=SHARD)
    assert far.distances[1] == 2 and far.shards == 2
    mixed = quality(indices(np.arange(SIZE), size=SIZE, seed=0), batch_size=64, shard=SHARD)
    assert mixed.with_neighbour == pytest.approx(1 - (1 - 63 / 4095) ** 32, abs=0.04)
    assert mixed.shards == pytest.approx(16 * (1 - (15 / 16) ** 64), abs=0.2)
    assert mixed.distances[2] == pytest.approx(SIZE * (1 - 0.5**0.5), rel=0.05)


@pytest.mark.parametrize("order", [webdataset_order, tf_data_order])
def test_other_loaders_hand_over_each_example_once_and_mix_more_with_a_longer_buffer(order):
    shards_of = {}
    for buffer in (1, 100, SIZE):
        index_N = order(SIZE - 9, shard=SHARD, buffer=buffer)
        np.testing.assert_array_equal(np.sort(index_N), np.arange(SIZE - 9))
        shards_of[buffer] = quality(index_N, batch_size=64, shard=SHARD).shards
    assert shards_of[1] < shards_of[100] < shards_of[SIZE]


def test_a_host_reads_what_lies_between_its_examples():
    blocks = Blocks(size=32, open=4)
    alone = reads(blocks, hosts=1, rows=128, example_bytes=1000, size=100_000)
    assert alone.bytes_per_byte == 1 and 1 / alone.requests > 31
    shared = reads(blocks, hosts=8, rows=8, example_bytes=1000, size=100_000)
    # Four of 32 examples of each block, and on average 20 from the first to the last of them.
    assert shared.bytes_per_byte == pytest.approx(5, abs=0.8)
    # Gaps too long to read: a request for each example, or a few.
    large = reads(blocks, hosts=8, rows=8, example_bytes=2 << 20, size=100_000)
    assert large.bytes_per_byte == 1
