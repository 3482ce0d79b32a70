"""The one data stream: example i is a function of (data set, seed, i) alone."""

from __future__ import annotations

import numpy as np
import pytest

from study.config import CachedImage, Cell, Data, Model
from study.data.stream import batches, random_flip


class Whole:
    """Hands over batches by index."""

    size = 1000

    def prefetch(self, index_N):
        pass

    def batch(self, index_N):
        return {"image": index_N[:, None] * 2.0, "text": index_N.astype(np.int32)}


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
