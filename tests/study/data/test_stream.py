"""The one data stream: example i is a function of (data set, seed, i) alone."""

from __future__ import annotations

import numpy as np
import pytest

from study.config import CachedImage, Cell, Data, Model
from study.data.stream import batches, indices, random_flip


class Whole:
    """Hands over batches by index."""

    size = 1000

    def __init__(self):
        self.calls = []

    def prefetch(self, index_N):
        self.calls.append(("prefetch", index_N.tolist()))

    def batch(self, index_N):
        self.calls.append(("batch", index_N.tolist()))
        return {"image": index_N[:, None] * 2.0, "text": index_N.astype(np.int32)}


def read(source, *, batch_size, steps, first_step=0, rows=None, chunk=3, seed=5):
    lengths = [min(chunk, steps - i) for i in range(0, steps, chunk)]
    parts = batches(
        source,
        seed=seed,
        batch_size=batch_size,
        first_step=first_step,
        chunks=lengths,
        rows=rows,
    )
    return np.concatenate([p["text"] for p in parts])


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 4097])
def test_every_epoch_is_a_permutation_of_its_own(size):
    first = indices(np.arange(size), size=size, seed=0)
    second = indices(np.arange(size, 2 * size), size=size, seed=0)
    np.testing.assert_array_equal(np.sort(first), np.arange(size))
    np.testing.assert_array_equal(np.sort(second), np.arange(size))
    if size > 9:
        assert (first != second).any()
        assert (first != indices(np.arange(size), size=size, seed=1)).any()


def test_positions_of_a_billion_example_split_are_distinct():
    got = indices(np.arange(10**9, 10**9 + 5000), size=4_000_000_000, seed=3)
    assert len(np.unique(got)) == 5000
    assert got.min() >= 0
    assert got.max() < 4_000_000_000
    assert abs(got.mean() / 2e9 - 1) < 0.05


def test_neighbours_are_uncorrelated():
    got = indices(np.arange(20_000), size=20_000, seed=0)
    assert abs(np.corrcoef(got[:-1], got[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(got, np.arange(20_000))[0, 1]) < 0.03


def test_the_order_is_the_same_at_every_batch_size_host_count_and_restart():
    source = Whole()
    plain = indices(np.arange(480), size=1000, seed=5)
    for batch_size in (16, 48, 240):
        steps = 480 // batch_size
        got = read(source, batch_size=batch_size, steps=steps)
        np.testing.assert_array_equal(got.ravel(), plain)
    late = read(source, batch_size=16, steps=10, first_step=20)
    np.testing.assert_array_equal(late.ravel(), plain[320:])
    rows = np.split(np.arange(16), 4)
    hosts = [read(source, batch_size=16, steps=30, rows=own) for own in rows]
    np.testing.assert_array_equal(np.concatenate(hosts, axis=1).ravel(), plain)


def test_a_source_is_told_what_is_read_next_one_chunk_ahead():
    source = Whole()
    read(source, batch_size=8, steps=8, rows=np.arange(2, 5))
    read_next = [index for name, index in source.calls if name == "batch"]
    assert [index for name, index in source.calls if name == "prefetch"] == read_next
    names = [name for name, _ in source.calls]
    assert names == ["prefetch", *["prefetch", "batch"] * 2, "batch"]


def test_image_and_text_stay_together():
    parts = batches(Whole(), seed=0, batch_size=8, first_step=0, chunks=[2, 2])
    for part in parts:
        np.testing.assert_array_equal(part["image"][..., 0], 2.0 * part["text"])
        assert part["text"].shape == (2, 8)


def test_a_coin_for_each_position_and_seed_mirrors_images():
    images_NxHxWxC = np.random.default_rng(0).random((4000, 2, 3, 1))
    at = np.arange(2**33, 2**33 + 4000)
    got = random_flip(images_NxHxWxC, at, seed=1)
    turned_N = (got != images_NxHxWxC).any((1, 2, 3))
    np.testing.assert_array_equal(got[turned_N], images_NxHxWxC[turned_N, :, ::-1])
    assert 0.45 < turned_N.mean() < 0.55
    np.testing.assert_array_equal(random_flip(images_NxHxWxC[70:90], at[70:90], seed=1), got[70:90])
    for other in (
        random_flip(images_NxHxWxC, at, seed=2),
        random_flip(images_NxHxWxC, at - 2**33, seed=1),
    ):
        assert 0.45 < (other != got).any((1, 2, 3)).mean() < 0.55


def test_cached_embeddings_cannot_be_mirrored():
    cached = Model(image=CachedImage(embeddings="z", dim=4), embed_dim=4)
    with pytest.raises(ValueError, match=r"data\.flip"):
        Cell(model=cached, data=Data(flip=True), batch_size=8)
