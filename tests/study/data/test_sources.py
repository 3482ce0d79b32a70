"""Sources: a batch is its rows, from embeddings or from images alike."""

import json
import tracemalloc

import numpy as np
import pytest

from study.config import CachedImage, Data, ViT
from study.data import cache, sources
from study.data.embeddings import CachedEmbeddings
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.glyphs import hog_lda
from study.data.glyphs import write as glyphs
from study.data.glyphs.write import prepare
from study.data.sources import load_labels, open_source
from study.data.token_shards import tokenize_dataset
from study.data.tokenizer import Tokenizer

EMBEDDED = CachedImage(embeddings="hog-lda-16", dim=16)
IMAGE = ViT(image_size=24)
rng = np.random.default_rng(0)


@pytest.mark.parametrize("image", [EMBEDDED, IMAGE])
def test_a_batch_is_its_rows(embedded, image):
    source = open_source(embedded, "train", image, Data())
    assert source.size == embedded.split("train").examples
    index_N = rng.integers(0, source.size, 64)
    batch = source.batch(index_N)
    assert batch["image"].dtype == (np.float16 if image is EMBEDDED else np.uint8)
    assert batch["text"].dtype == np.int32
    for name in ("image", "text"):
        rows = [source.batch(np.array([i]))[name][0] for i in index_N]
        np.testing.assert_array_equal(batch[name], np.stack(rows))


def test_embeddings_and_tokens_are_those_of_the_examples(embedded):
    batch = open_source(embedded, "val_font", EMBEDDED, Data(text_length=12)).batch(np.arange(20))
    cache = CachedEmbeddings.open(embedded, "hog-lda-16", "val_font")
    np.testing.assert_array_equal(batch["image"], cache.take(np.arange(20)))
    reader = open_split(embedded, "val_font")
    texts = [reader.text(i) for i in range(20)]
    np.testing.assert_array_equal(batch["text"], Tokenizer(embedded.tokenizer, 12)(texts))


def test_a_cache_too_large_for_memory_gives_the_same(copy, monkeypatch):
    embedded = Dataset.open(copy)
    index_N = rng.integers(0, embedded.split("train").examples, 300)
    expected = {image.kind: open_source(embedded, "train", image, Data()).batch(index_N)
                for image in (EMBEDDED, IMAGE)}  # fmt: skip
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(cache, "_LOADED", {})
    with pytest.raises(
        DataError, match=r"do not fit in memory.*`study data tokenize .*--length 16`"
    ):
        open_source(embedded, "train", EMBEDDED, Data())
    tokenize_dataset(embedded, Data(), workers=1)
    for image in (EMBEDDED, IMAGE):
        source = open_source(embedded, "train", image, Data())
        kept = source._rows_NxE if image is EMBEDDED else source._keep
        assert kept in (None, False)
        for name, value in source.batch(index_N).items():
            np.testing.assert_array_equal(value, expected[image.kind][name])


def test_images_are_pixels_and_keep_their_channel(embedded):
    source = open_source(embedded, "train", IMAGE, Data())
    pixels = open_split(embedded, "train").read_images([3, 3, 700], size=24, channels=1)
    image = source.batch(np.array([3, 3, 700]))["image"]
    assert image.shape == (3, 24, 24, 1)
    np.testing.assert_array_equal(image, pixels)


def test_opening_twice_tokenises_once(copy, monkeypatch):
    dataset = Dataset.open(copy)
    first = open_source(dataset, "train", EMBEDDED, Data())
    monkeypatch.setattr(cache, "_LOADED", {})  # as in a new process

    def refuse(*_args):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(Tokenizer, "__call__", refuse)
    second = open_source(dataset, "train", EMBEDDED, Data())
    np.testing.assert_array_equal(first.texts.tokens_NxL, second.texts.tokens_NxL)


@pytest.mark.parametrize("image", [EMBEDDED, IMAGE], ids=["cached", "pixels"])
def test_what_one_source_has_read_the_next_has(image, embedded, monkeypatch):
    monkeypatch.setattr(cache, "_SHARED", {})
    read = []

    def count(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: read.append(name) or original(*a, **k))

    count(CachedEmbeddings, "rows")
    count(sources, "decode_into")

    def images() -> np.ndarray:
        return open_source(embedded, "val_font", image, Data()).image(np.arange(40))

    first, times = images(), len(read)
    np.testing.assert_array_equal(images(), first)
    assert len(read) == times == (1 if image is EMBEDDED else 2)  # blocks of 32 images


def test_shared_arrays_are_kept_up_to_a_size_those_used_last(embedded, monkeypatch):
    monkeypatch.setattr(cache, "_SHARED", {})
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 100)
    made = []

    def use(name):
        cache.share(embedded, name, lambda: made.append(name) or (np.zeros(40, np.uint8),))

    for name in "abacab":
        use(name)
    assert made == ["a", "b", "c", "b"]


def test_embeddings_that_are_written_again_are_read_again(copy):
    dataset, index_N = Dataset.open(copy), np.arange(40)
    before = open_source(dataset, "val_font", EMBEDDED, Data()).image(index_N)
    for path in copy.glob("embeddings/*/val_font*.npy"):
        np.save(path, -np.load(path))
    np.testing.assert_array_equal(
        open_source(dataset, "val_font", EMBEDDED, Data()).image(index_N), -before
    )


def test_a_cache_of_other_data_is_not_used(copy):
    dataset = Dataset.open(copy)
    before = load_labels(dataset, "val_font")
    for path in (copy / "cache").glob("*.npy"):
        path.write_bytes(b"torn")
    cache._LOADED.clear()
    np.testing.assert_array_equal(load_labels(dataset, "val_font"), before)


def test_embeddings_of_another_width_are_refused(embedded):
    with pytest.raises(DataError, match=r"16 wide, the cell expects 32; set model\.image\.dim"):
        open_source(embedded, "train", CachedImage(embeddings="hog-lda-16", dim=32), Data())


@pytest.mark.parametrize("value", [None, -1, 10**6, "A"])
def test_an_invalid_class_is_named(copy, value):
    from study.data.formats.webdataset import write_shard

    dataset = Dataset.open(copy)
    reader = open_split(dataset, "val_font")
    rows = []
    for i in range(len(reader)):
        metadata = reader.json(i)
        if i == 7:
            metadata["class"] = value
        members = {"png": reader.image(i), "txt": b"", "json": json.dumps(metadata).encode()}
        rows.append((reader.key(i), members))
    write_shard(dataset.split("val_font").shards[0], rows)
    for path in (copy / "cache").glob("labels-*"):
        path.unlink()
    cache._LOADED.clear()
    with pytest.raises(DataError, match=rf"{rows[7][0]}: its \"class\" is {value!r}"):
        load_labels(dataset, "val_font")


def test_a_gather_copies_rows_and_nothing_else(embedded):
    """The training loop takes millions of rows a second: no hidden work per batch."""
    source = open_source(embedded, "train", EMBEDDED, Data())
    index_N = rng.integers(0, source.size, 1000)
    source.batch(index_N)
    tracemalloc.start()
    batch = source.batch(index_N)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * sum(value.nbytes for value in batch.values()) + 20_000


def test_prepare_makes_what_a_study_reads_and_then_does_nothing(tmp_path, recipe, monkeypatch):
    write, embed = glyphs.write_glyphs, hog_lda.embed
    monkeypatch.setattr(
        glyphs, "write_glyphs", lambda out, **more: write(out, **{**more, **recipe, "workers": 1})
    )
    monkeypatch.setattr(hog_lda, "embed", lambda data, **more: embed(data, workers=1))
    dataset = prepare(tmp_path)
    source = open_source(dataset, "train", CachedImage(embeddings="hog-lda-96", dim=96), Data())
    assert source.batch(np.arange(2))["image"].shape == (2, 96)
    assert (tmp_path / "glyphs" / "samples.png").read_bytes().startswith(b"\x89PNG")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    prepare(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps
