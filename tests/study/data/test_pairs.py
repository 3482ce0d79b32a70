"""Splits of (image, text) rows over the images of another split."""

import dataclasses
import json

import numpy as np
import pytest

from study.config import CachedImage, Data, ViT
from study.data.embed_shards import embed_dataset
from study.data.embeddings import CachedEmbeddings
from study.data.formats.dataset import DATASET_FILE, DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.formats.pairs import write_pairs
from study.data.sources import open_source
from study.data.token_shards import tokenize_dataset

TEXTS = ("one of them", "noch einer", "un autre")


@pytest.fixture
def pairs(copy) -> Dataset:
    """A copy of the embedded glyphs with three rows for each of their first images, shuffled."""
    text = [TEXTS[k % 3] for k in range(120)]
    write_pairs(copy / "pairs.parquet", images_of(), {"text": text, "language": ["en"] * 120})
    manifest = json.loads((copy / DATASET_FILE).read_text())
    manifest["splits"]["pairs"] = {"shards": ["pairs.parquet"], "examples": 120, "images": "train"}
    (copy / DATASET_FILE).write_text(json.dumps(manifest))
    return Dataset.open(copy)


def images_of() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(40).repeat(3))


def test_a_row_has_the_image_of_its_split_and_its_own_text(pairs):
    rows, images = open_split(pairs, "pairs"), open_split(pairs, "train")
    for i, image in enumerate(images_of()):
        assert rows.pair(i) == (images.image(image), TEXTS[i % 3])
        assert rows.json(i) == images.json(image) | {"language": "en"}


@pytest.mark.parametrize("image", [CachedImage(embeddings="hog-lda-16", dim=16), ViT()])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_source_reads_the_shared_image_of_each_row(pairs, image, in_memory, monkeypatch):
    if not in_memory:
        tokenize_dataset(pairs, Data(), workers=1)
        monkeypatch.setattr("study.data.cache.IN_MEMORY_BYTES", 0)
    source = open_source(pairs, "pairs", image, Data())
    of_images = open_source(pairs, "train", image, Data())
    index_N = np.array([5, 3, 100, 5, 119, 0])
    np.testing.assert_array_equal(
        source.batch(index_N)["image"], of_images.image(images_of()[index_N])
    )
    np.testing.assert_array_equal(
        source.batch(index_N)["text"], source.texts.tokenizer([TEXTS[i % 3] for i in index_N])
    )


def test_images_are_embedded_once_whatever_the_number_of_rows(pairs, tower):
    folder = embed_dataset(pairs, tower, "again", workers=1)
    assert not list(folder.glob("pairs*"))
    rows = CachedEmbeddings.open(pairs, "again", "pairs")
    stored = CachedEmbeddings.open(pairs, "again", "train")
    assert (len(rows), len(rows.stored)) == (120, len(stored))
    np.testing.assert_array_equal(rows.take(np.arange(120)), stored.take(images_of()))


@pytest.mark.parametrize("image", [CachedImage(embeddings="hog-lda-16", dim=16), ViT()])
def test_all_rows_of_a_damaged_image_are_replaced(pairs, image, tower):
    bad_image = int(images_of()[7])
    bad_N = images_of() == bad_image
    tar = pairs.splits["train"].shards[0]
    data = open_split(pairs, "train").image(bad_image)
    tar.write_bytes(tar.read_bytes().replace(data, bytes(len(data))))
    if isinstance(image, CachedImage):
        image = dataclasses.replace(image, embeddings="damaged")
        embed_dataset(pairs, tower, "damaged", workers=1)
    source = open_source(pairs, "pairs", image, Data(max_bad_share=0.1))
    source.batch(np.arange(120))
    resolved_N = source.replacements.resolve(np.arange(120))
    np.testing.assert_array_equal(resolved_N != np.arange(120), bad_N)


def test_a_row_of_a_missing_image_is_refused(pairs):
    write_pairs(pairs.folder / "pairs.parquet", np.arange(10_000, 10_120), {"text": ["x"] * 120})
    with pytest.raises(DataError, match=r"pairs.parquet names an image outside of the"):
        open_split(pairs, "pairs")


def test_a_table_that_is_damaged_or_lacks_texts_is_refused(pairs):
    write_pairs(pairs.folder / "pairs.parquet", np.arange(120), {"language": ["en"] * 120})
    with pytest.raises(DataError, match="has no column text"):
        open_split(pairs, "pairs")
    (pairs.folder / "pairs.parquet").write_bytes(b"not a table")
    with pytest.raises(DataError, match="is not a readable table"):
        open_split(pairs, "pairs")
