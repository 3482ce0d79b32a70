"""Several data sets are one source, with one tokenizer, and keep their own examples."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from study.config import Blocks, CachedImage, Data, ViT
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.mix import Mixture, with_tokenizer
from study.data.sources import open_source
from study.data.stream import batches
from study.data.texts import load_tokens
from study.data.tokenizer import Tokenizer

IMAGE = CachedImage(embeddings="hog-lda-16", dim=16)
MIX = Data(mix=(("glyphs", 1), ("twin", 3)))


@pytest.fixture
def glyphs(copy):
    """A data set with another one beside it: the same texts, other embeddings in float32."""
    twin = shutil.copytree(copy, copy.parent / "twin")
    for path in (twin / "embeddings" / "hog-lda-16").glob("*.npy"):
        np.save(path, -np.load(path).astype(np.float32))
    manifest = json.loads((twin / "dataset.json").read_text())
    manifest |= {"name": "twin", "fingerprint": "0" * 64}
    (twin / "dataset.json").write_text(json.dumps(manifest))
    tower = twin / "embeddings" / "hog-lda-16" / "tower.json"
    tower.write_text(json.dumps(json.loads(tower.read_text()) | {"dataset_fingerprint": "0" * 64}))
    return Dataset.open(copy)


def test_a_mix_hands_over_the_examples_of_each_set(glyphs):
    mixture = Mixture(glyphs, MIX)
    source, parts = mixture.open(IMAGE), [
        open_source(Dataset.open(glyphs.folder.parent / name), "train", IMAGE, Data())
        for name in ("glyphs", "twin")
    ]  # fmt: skip
    size = parts[0].size
    assert (source.size, mixture.examples) == (2 * size, 2 * size)
    index_N = np.array([5, size + 3, size - 1, 2 * size - 1, size, 5])
    for got, name in ((source.batch(index_N)["text"], "text"), (source.text(index_N), "text"),
                      (source.batch(index_N)["image"], "image")):  # fmt: skip
        both = np.concatenate([part.batch(np.arange(size))[name] for part in parts])
        np.testing.assert_array_equal(got, both[index_N])
    # One type, whatever the batch is of: else each would be a program of its own.
    assert source.batch(np.arange(3))["image"].dtype == np.float32
    assert Mixture(glyphs, Data()).fingerprint == glyphs.fingerprint != mixture.fingerprint


def test_the_stream_of_a_mix_has_the_stream_of_each_set(glyphs):
    data = dataclasses.replace(MIX, order=Blocks(size=32, open=2))
    mixture = Mixture(glyphs, data)
    order, source = mixture.order(seed=4), mixture.open(IMAGE)
    position_N = np.arange(1600)
    parts = batches(source, seed=4, batch_size=16, first_step=0, chunks=[60, 40], order=order)
    image_NxE = np.concatenate([part["image"] for part in parts]).reshape(1600, -1)
    set_N, rank_N = order.ranks(position_N)
    alone = Mixture(glyphs, dataclasses.replace(data, mix=()))
    for k, sign in enumerate((1, -1)):
        index_M = alone.order(seed=4).indices(rank_N[set_N == k])
        own_MxE = alone.open(IMAGE).batch(index_M)["image"]
        np.testing.assert_array_equal(image_NxE[set_N == k], sign * own_MxE.astype(np.float32))
    assert order.counts(1600) == [400, 1200]


def test_replaced_examples_are_counted_in_their_own_set(glyphs):
    source = Mixture(glyphs, MIX).open(IMAGE)
    size = source.size // 2
    calls = {}
    for k, part in enumerate(source._sources):
        part.replacements.count_read = lambda index_N, k=k: calls.update({k: index_N}) or k + 1
        part.replacements.resume = lambda *counts, k=k: calls.update({k: counts})
    assert source.replacements.count_read(np.array([1, size + 1, 2])) == 3
    assert [calls[0].tolist(), calls[1].tolist()] == [[1, 2], [1]]
    source.replacements.resume(800, 8)
    assert calls == {0: (200, 2), 1: (600, 6)}


def test_sets_that_do_not_fit_together_are_refused_in_one_line(glyphs, indexed):
    """`indexed`, in the folder photos beside it, has a tokenizer of its own and is RGB."""

    def refusal(name, **fields):
        data = dataclasses.replace(MIX, mix=(("glyphs", 1), (name, 1)), **fields)
        with pytest.raises(DataError) as caught:
            Mixture(glyphs, data).open(ViT(image_size=16))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no data set at" in refusal("none")
    line = refusal("photos")
    assert "glyphs and photos have different tokenizers" in line
    assert "--set data.tokenizer=sentencepiece.model" in line
    line = refusal("photos", tokenizer="sentencepiece.model")
    assert "an image of glyphs is 16 x 16 x 1, one of photos 16 x 16 x 3" in line
    assert "has no split 'val_font'" in refusal("photos", split="val_font")


@pytest.mark.parametrize("own", [True, False])
def test_every_set_is_read_with_the_tokenizer_of_the_cell(own, glyphs, indexed):
    """Also one that names none, as benchmarks do."""
    photos = indexed.folder
    fields = {"tokenizer": "sentencepiece.model"}
    if not own:
        (photos / "sentencepiece.model").unlink()
        manifest = json.loads((photos / "dataset.json").read_text())
        (photos / "dataset.json").write_text(json.dumps(manifest | {"tokenizer": None}))
        fields = {}
    data = Data(mix=(("glyphs", 1), ("photos", 1)), **fields)
    photo_set = Dataset.open(photos)
    settings = with_tokenizer(photo_set, glyphs, data)
    source = open_source(photo_set, "train", ViT(image_size=16), settings)
    captions = [open_split(photo_set, "train").text(i) for i in range(4)]
    expected_NxL = Tokenizer.open(glyphs, data)(captions)
    np.testing.assert_array_equal(source.text(np.arange(4)), expected_NxL)
    tokens_NxL = load_tokens(photo_set, "train", settings)  # as they are cached
    np.testing.assert_array_equal(tokens_NxL[:4], expected_NxL)
