"""The bench compares ways that do the same work."""

import numpy as np

from study.bench import data as bench_data
from study.config import CachedImage, Data, ViT
from study.data.sources import EmbeddingSource, ImageSource


def rows(batches, name):
    stacked = np.concatenate([b[name].reshape(-1, *b[name].shape[-k:]) for b in batches
                              for k in ({"image": 3, "text": 1}[name],)])  # fmt: skip
    flat = stacked.reshape(len(stacked), -1)
    return flat[np.lexsort(flat.T[:8])]


def test_both_loaders_deliver_the_same_examples(tmp_path):
    dataset = bench_data._image_set(tmp_path / "images", 16)
    source = ImageSource(dataset, "train", ViT(image_size=32), Data(), keep=False)
    ours = list(bench_data._stream(source, 8))
    theirs = list(bench_data._plain_loop(dataset, 32, 16, 8))
    for name in ("image", "text"):
        np.testing.assert_allclose(rows(ours, name), rows(theirs, name), atol=1e-6)


def test_both_readers_of_embeddings_deliver_the_same_examples(tmp_path):
    dataset = bench_data._embedded_set(tmp_path / "embedded", 64)
    source = EmbeddingSource(dataset, "train", CachedImage(embeddings="z", dim=768), Data())
    ours = np.concatenate([b["image"][0] for b in bench_data._stream(source, 16)])
    theirs = np.concatenate([b["image"] for b in bench_data._grain_elements(source, 16)])
    np.testing.assert_array_equal(ours[ours[:, 0].argsort()], theirs[theirs[:, 0].argsort()])


def test_it_times_both_inputs():
    results = bench_data.bench(images=8, embeddings=32, image_size=16, batch_size=8, rounds=2)
    assert [r.name for r in results] == ["images", "embeddings"]
    for r in results:
        assert len(r.ratios) == 2
        assert r.ratio == r.ours_per_s / r.theirs_per_s > 0
