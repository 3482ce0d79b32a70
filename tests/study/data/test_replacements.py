"""Bad examples: the replacement is a function of the index, and replacements are counted."""

import json
import tarfile

import numpy as np
import pytest

from study.config import CachedImage, Data, ViT
from study.data import cache, replacements, write_rows
from study.data.embed_shards import embed_dataset
from study.data.embeddings import CachedEmbeddings
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.index_shards import index_shards
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError
from study.data.formats.webdataset import write_shard
from study.data.order import indices
from study.data.replacements import Replacements
from study.data.sources import ImageSource, open_source
from study.data.stream import batches
from study.data.token_shards import tokenize_dataset

BAD_IMAGES, BAD_TEXTS = (3, 4, 17), (40,)
LENIENT = Data(max_bad_share=0.2)
IMAGE = ViT(image_size=16)


@pytest.fixture
def broken(folder) -> Dataset:
    """The photos, but for some images and texts: torn, absent, not UTF-8; the last one too."""
    index_shards(folder, train_pieces=200, workers=1)
    for shard in sorted(folder.glob("*.tar")):
        reader = open_split(Dataset.open(folder), "train")
        first = int(shard.stem) * 32
        rows = []
        for i in range(first, min(first + 32, len(reader))):
            members = {"jpg": reader.image(i), "txt": reader.text(i).encode()}
            if i in (3, len(reader) - 1):
                members["jpg"] = members["jpg"][:100]
            if i in (4, 17):
                del members["jpg"]
            if i in BAD_TEXTS:
                members["txt"] = b"\xff\xfe"
            rows.append((reader.key(i), members))
        write_shard(shard, rows)
    return index_shards(folder, workers=1).dataset


def expected(dataset: Dataset) -> np.ndarray:
    """Who is used for each index."""
    size = dataset.split("train").examples
    bad = {*BAD_IMAGES, *BAD_TEXTS, size - 1}
    out = []
    for i in range(size):
        while i in bad:
            i = (i + 1) % size
        out.append(i)
    return np.array(out)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_next_usable_example_is_used_whatever_was_read_before(broken, keep, threads):
    size, of = broken.split("train").examples, expected(broken)
    cache._LOADED.clear()
    cache._SHARED.clear()
    whole = ImageSource(broken, "train", IMAGE, LENIENT, keep=keep, threads=threads)
    together = whole.batch(np.arange(size))
    for rows in together.values():
        np.testing.assert_array_equal(rows, rows[of])
    alone = ImageSource(broken, "train", IMAGE, LENIENT, keep=not keep)
    for i in np.random.default_rng(0).permutation(size):
        for name, rows in alone.batch(np.array([i])).items():
            np.testing.assert_array_equal(rows[0], together[name][i])
    assert whole.replacements.count_read(np.arange(size)) == (of != np.arange(size)).sum() == 5


def test_the_stream_counts_them_and_is_the_same_at_every_batch_size_and_host_count(broken):
    size, runs = broken.split("train").examples, {}
    for batch_size, hosts in ((8, 1), (16, 1), (16, 4), (48, 2)):
        counts: list[list[int]] = []
        parts = []
        for host in range(hosts):
            source = open_source(broken, "train", IMAGE, LENIENT)
            stream = batches(
                source,
                seed=3,
                batch_size=batch_size,
                first_step=0,
                chunks=[1] * (96 // batch_size),
                rows=np.split(np.arange(batch_size), hosts)[host],
                flip=True,
                on_replaced=counts.append,
            )
            parts.append(list(stream))
        steps = [np.concatenate([p["image"][0] for p in step]) for step in zip(*parts, strict=True)]
        runs[batch_size, hosts] = np.concatenate(steps), sum(map(sum, counts))
    first, count = runs[8, 1]
    for images, other in runs.values():
        np.testing.assert_array_equal(images, first)
        assert other == count
    of, index_N = expected(broken), indices(np.arange(96), size=size, seed=3)
    assert count == (of[index_N] != index_N).sum() > 0


def test_too_many_are_an_error_that_names_the_share_and_the_first(broken):
    source = open_source(broken, "train", IMAGE, Data(max_bad_share=0.03))
    with pytest.raises(
        DataError, match=r"cannot be used.*max_bad_share = 3\.00%; one of them: .*0000"
    ) as e:
        source.batch(np.arange(source.size))
    assert "\n" not in str(e.value)


def test_none_is_replaced_where_none_may_be(broken):
    source = open_source(broken, "train", IMAGE, Data(max_bad_share=0))
    source.image(np.array([0, 1, 40]))  # whose text is bad, which nobody asked for
    with pytest.raises(BadExampleError, match=r"00000\.tar: 000000003: its image does not decode"):
        source.image(np.array([2, 3]))


def test_texts_alone_do_not_mind_bad_images(broken):
    for keep in (True, False):
        source = ImageSource(broken, "train", IMAGE, LENIENT, keep=keep)
        got = source.text(np.array([3, 40, 41, 0]))
        np.testing.assert_array_equal(got[1], got[2])
        assert (got[0] != got[3]).any()


def damaged(index_N, bad):
    return {int(i): BadExampleError("?") for i in index_N if i in bad}


def test_a_share_counts_from_a_thousand_examples_on():
    replacements = Replacements(size=10**9, max_share=0.01, name="x")
    replacements.add_bad(damaged(range(10), range(10)), np.arange(20))
    assert replacements.count_read(np.arange(20)) == 10
    replacements.add_bad(damaged([99], [99]), np.array([21]))  # only tried, in place of 21
    with pytest.raises(DataError, match="11 of the first 1,000"):
        replacements.count_read(np.array([99]))
    assert replacements.resolve(np.array([0, 9, 99, 98])).tolist() == [10, 10, 100, 98]


def ends_at(stream, bad, *, size, max_share, restarts=(), pieces=37):
    """Where a run over these examples is refused, None where it is not."""
    replacements = Replacements(size=size, max_share=max_share, name="x")
    replaced = at = 0
    stops = sorted({*restarts, len(stream)})
    while at < len(stream):
        if at in restarts:
            replacements = Replacements(size=size, max_share=max_share, name="x")
            replacements.resume(at, replaced)
        piece = stream[at : min(at + pieces, min(s for s in stops if s > at))]
        try:
            replacements.add_bad(damaged(piece, bad), piece)
            replaced += replacements.count_read(piece)
        except DataError as error:
            return str(error).split(" examples read")[0]
        at += len(piece)
    return None


@pytest.mark.parametrize(("share", "stops"), [(0.004, 0), (0.01, 0), (0.02, 1), (0.04, 1)])
def test_whether_a_run_stops_depends_on_neither_restarts_nor_pieces(share, stops):
    """Two epochs; the bad examples are among those of positions 1500 to 4500 of the first."""
    rng = np.random.default_rng(0)
    size = 5000
    stream = np.concatenate([rng.permutation(size), rng.permutation(size)])
    bad = {int(i) for i in stream[1500:4500] if rng.random() < share}
    settings = {"size": size, "max_share": 0.01}
    want = ends_at(stream, bad, **settings)
    assert (want is not None) == bool(stops)
    for restarts in [(500,), (1500, 2500), (4000,), (5000, 7000), tuple(range(100, 9000, 700))]:
        for pieces in (1, 8, 4096):
            assert ends_at(stream, bad, **settings, restarts=restarts, pieces=pieces) == want


def test_reading_ends_where_no_example_can_be_used(folder):
    index_shards(folder, train_pieces=200, workers=1)
    dataset = Dataset.open(folder)
    for shard in dataset.split("train").shards:
        reader = open_split(dataset, "train")
        first = int(shard.stem) * 32
        rows = [
            (reader.key(i), {"jpg": b"no image", "txt": reader.text(i).encode()})
            for i in range(first, min(first + 32, len(reader)))
        ]
        write_shard(shard, rows)
    dataset = index_shards(folder, workers=1).dataset
    for keep in (True, False):
        source = ImageSource(dataset, "train", IMAGE, Data(max_bad_share=0.9), keep=keep)
        with pytest.raises(DataError, match="cannot be used"):
            source.batch(np.arange(source.size))


def test_the_bad_texts_of_a_whole_split_count_where_the_stream_meets_them():
    """All are known at the first batch, and are a small share of the split."""
    replacements = Replacements(size=100_000, max_share=0.01, name="x")
    replacements.add_bad(damaged(range(0, 100_000, 200), range(0, 100_000, 200)), np.arange(1, 65))
    assert replacements.count_read(np.arange(1, 65)) == 0
    assert replacements.count_read(np.arange(150, 250)) == 1


class Mean:
    """A tower that needs no training: the mean colour."""

    size, channels, dim = 8, 3, 3

    @property
    def metadata(self):
        return {"kind": "mean colour"}

    def __call__(self, images_NxHxWxC):
        return images_NxHxWxC.mean((1, 2)).astype(np.float32) / 255


def test_cached_embeddings_of_unusable_images_are_replaced_too(broken):
    with pytest.raises(DataError, match=r"4 of the .* images of train cannot be used"):
        embed_dataset(broken, Mean(), "mean", workers=1)
    embed_dataset(broken, Mean(), "mean", workers=1, max_bad_share=0.2)
    cache = CachedEmbeddings.open(broken, "mean", "train")
    size = broken.split("train").examples
    assert sorted(cache.bad) == [*BAD_IMAGES, size - 1]
    assert np.isnan(cache.take(np.array(sorted(cache.bad)))).all()
    source = open_source(broken, "train", CachedImage(embeddings="mean", dim=3), LENIENT)
    batch = source.batch(np.arange(size))
    assert np.isfinite(batch["image"]).all()
    for rows in batch.values():
        np.testing.assert_array_equal(rows, rows[expected(broken)])
    with pytest.raises(DataError, match="max_bad_share"):
        open_source(broken, "train", CachedImage(embeddings="mean", dim=3), Data())


def test_bad_rows_that_are_not_listed_are_replaced_as_they_are_read(broken, monkeypatch):
    """Of embeddings and tokens in shards, where neither their lists nor their memory would end."""
    monkeypatch.setattr(write_rows, "MAX_LISTED", 1)
    monkeypatch.setattr(replacements, "MAX_REMEMBERED", 4)
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 100)
    embed_dataset(broken, Mean(), "many", workers=1, max_bad_share=0.2)
    tokenize_dataset(broken, LENIENT, workers=1, max_bad_share=0.2)
    size, of = broken.split("train").examples, expected(broken)
    assert CachedEmbeddings.open(broken, "many", "train").bad is None
    image = CachedImage(embeddings="many", dim=3)
    batch = open_source(broken, "train", image, LENIENT).batch(np.arange(size))
    for rows in batch.values():
        np.testing.assert_array_equal(rows, rows[of])
    source = open_source(broken, "train", image, LENIENT)
    for i in np.random.default_rng(0).permutation(size):
        for name, rows in source.batch(np.array([i])).items():
            np.testing.assert_array_equal(rows[0], batch[name][i])
        assert source.replacements.count_read(np.array([i])) == (of[i] != i)
    assert len(source.replacements._bad) + len(source.replacements._older) <= 4
    got = source.text(np.array([3, 40, 41, 0]))
    np.testing.assert_array_equal(got[1], got[2])
    assert (got[0] != got[3]).any()
    with pytest.raises(DataError, match=r"4 of the first .*see the files"):
        open_source(broken, "train", image, Data())


def test_examples_without_members_are_counted_when_indexed(broken):
    assert index_shards(broken.folder, workers=1).incomplete == 2
    manifest = json.loads((broken.folder / "dataset.json").read_text())
    with tarfile.open(broken.split("train").shards[0]) as archive:
        assert manifest["splits"]["train"]["counts"][0] == len({n[:9] for n in archive.getnames()})
