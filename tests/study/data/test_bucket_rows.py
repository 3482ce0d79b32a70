"""Embeddings and tokens read by range, from a bucket or from more files than can be mapped."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import tracemalloc

import numpy as np
import pytest

from study.config import CachedImage, Data
from study.data import cache, ranges, row_shards
from study.data.embed_shards import embed_dataset
from study.data.embeddings import TOWER_FILE, CachedEmbeddings, layout
from study.data.errors import DataError
from study.data.files import to_path
from study.data.row_files import Shard, verify_rows
from study.data.row_shards import RowShards
from study.data.sources import open_source
from study.data.texts import load_tokens
from study.data.token_shards import open_tokens, tokenize_dataset
from study.records.record import atomic_write, read_json
from study.records.storage import listdir, read, unlink

NAME, SPLIT = "hog-lda-16", "train"
IMAGE = CachedImage(embeddings=NAME, dim=16)


def put(path, content):
    with atomic_write(path) as file:
        file.write(content)


def npy(rows):
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tokenized(embedded, tmp_path_factory):
    """The data set on a disk, with tokens in shards."""
    folder = shutil.copytree(embedded.folder, tmp_path_factory.mktemp("tokenized") / "glyphs")
    dataset = dataclasses.replace(embedded, folder=folder)
    tokenize_dataset(dataset, Data(), workers=1)
    return dataset


@pytest.fixture
def in_bucket(tokenized, gcs):
    """The data set with its embeddings and tokens in a bucket."""
    folder = to_path(f"gs://{gcs.bucket()}/lit/glyphs")
    for name in ("embeddings", "tokens"):
        for path in sorted((tokenized.folder / name).rglob("*.*")):
            put(folder / str(path.relative_to(tokenized.folder)), path.read_bytes())
    return dataclasses.replace(tokenized, folder=folder)


@pytest.fixture(params=["bucket", "disk"])
def by_range(request, tokenized, tmp_path, monkeypatch):
    """The data set with rows that are read by range and kept nowhere."""
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1000)
    if request.param == "bucket":
        return request.getfixturevalue("in_bucket")
    monkeypatch.setattr(row_shards, "_MAX_MAPS", 0)
    folder = shutil.copytree(tokenized.folder, tmp_path / "glyphs")
    return dataclasses.replace(tokenized, folder=folder)


def assert_equal(batch, expected):
    assert batch.keys() == expected.keys()
    for name, rows in batch.items():
        assert rows.dtype == expected[name].dtype
        np.testing.assert_array_equal(rows, expected[name])


@pytest.mark.parametrize("seed", range(2))
def test_rows_are_those_of_a_disk_whatever_was_prefetched(by_range, embedded, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(ranges, "MAX_GAP", int(rng.integers(0, 2000)))
    monkeypatch.setattr(ranges, "MAX_RUN", int(rng.integers(32, 20_000)))
    monkeypatch.setattr(row_shards, "_RUNS_AHEAD", int(rng.integers(1, 9)))
    source = open_source(by_range, SPLIT, IMAGE, Data())
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1 << 30)
    whole = open_source(embedded, SPLIT, IMAGE, Data())
    np.testing.assert_array_equal(source._cache.rows(), whole._cache.rows())
    for _ in range(4):
        index_N = rng.integers(0, source.size, 200)
        for part_M in np.split(rng.permutation(index_N), [80, 140]):
            source.prefetch(part_M)
        assert_equal(source.batch(index_N), whole.batch(index_N))
        np.testing.assert_array_equal(source.text(index_N[::3]), whole.text(index_N[::3]))


def test_a_small_split_is_read_from_a_bucket_once(in_bucket, embedded):
    cache._SHARED.clear()
    source = open_source(in_bucket, SPLIT, IMAGE, Data())
    assert source._rows_NxE is not None
    index_N = np.random.default_rng(0).integers(0, source.size, 300)
    np.testing.assert_array_equal(
        source.image(index_N), open_source(embedded, SPLIT, IMAGE, Data()).image(index_N)
    )


def requests_of(gcs, dataset):
    return gcs.counts(dataset.folder.path.partition("/")[0])


def test_opening_is_one_request_and_what_was_prefetched_is_read_once(in_bucket, gcs, monkeypatch):
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1000)
    before = requests_of(gcs, in_bucket)
    source = open_source(in_bucket, SPLIT, IMAGE, Data())
    assert requests_of(gcs, in_bucket) - before == {"read": 2}  # tower.json and tokens.json
    shards = len(source._cache.stored.starts())
    windows = np.array_split(np.random.default_rng(0).permutation(source.size), 5)
    before = requests_of(gcs, in_bucket)
    for coming in windows[:2]:
        source.prefetch(coming)
    for k, window in enumerate(windows):
        for part in np.array_split(window, 4):
            source.batch(part)
        if k + 2 < len(windows):
            source.prefetch(windows[k + 2])
    # Within a shard all gaps are short, so each window is one run of each shard, of both arrays.
    assert requests_of(gcs, in_bucket) - before == {"read": 2 * shards * len(windows)}
    assert source._cache.stored._windows == source.texts._stored._windows == []


def test_windows_that_are_not_read_are_dropped(in_bucket, monkeypatch):
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1000)
    stored = CachedEmbeddings.open(in_bucket, NAME, SPLIT).stored
    for k in range(9):
        stored.prefetch(np.arange(100 * k, 100 * k + 100))
        stored.take(np.arange(100 * k, 100 * k + 99))
        assert len(stored._windows) <= 3


class Pixels:
    """A tower whose process dies at some image."""

    size, channels, dim = 10, 1, 100

    def __init__(self, dies_at):
        self.dies_at = dies_at
        self.metadata = {"tower": "pixels"}

    def __call__(self, images_NxHxWxC):
        self.dies_at -= len(images_NxHxWxC)
        if self.dies_at < 0:
            raise KeyboardInterrupt
        return images_NxHxWxC.reshape(-1, self.dim).astype(np.float32)


def test_embeddings_are_written_to_a_bucket_in_parts_and_after_a_kill(tokenized, gcs):
    name = f"gs://{gcs.bucket()}/pixels"
    folder = to_path(name)
    embed_dataset(tokenized, Pixels(10**9), "pixels", workers=1)
    with pytest.raises(KeyboardInterrupt):
        embed_dataset(tokenized, Pixels(1300), name, workers=1, part=(0, 2))
    written = {path.name for path in listdir(folder) if path.suffix == ".npy"}
    assert 0 < len(written) < sum(len(s.shards) for s in tokenized.splits.values())
    begun = gcs.counts(folder.path.partition("/")[0])["write"]
    embed_dataset(tokenized, Pixels(10**9), name, workers=1, part=(0, 2))
    with pytest.raises(DataError, match="no finished embeddings"):
        CachedEmbeddings.open(tokenized, name, SPLIT)
    embed_dataset(tokenized, Pixels(10**9), name, workers=1, part=(1, 2))
    shards = sum(len(split.shards) for split in tokenized.splits.values())
    # A JSON and an array for each shard that was left, and tower.json.
    left = 2 * (shards - len(written)) + 1
    assert gcs.counts(folder.path.partition("/")[0])["write"] - begun == left
    local = tokenized.folder / "embeddings" / "pixels"
    for path in local.glob("*.npy"):
        assert read(folder / path.name) == path.read_bytes()
    assert read_json(folder / TOWER_FILE)["shards"] == read_json(local / TOWER_FILE)["shards"]
    verify_rows(folder, TOWER_FILE)
    with pytest.raises(DataError, match="tower was pixels, is colours"):
        other = Pixels(10**9)
        other.metadata = {"tower": "colours"}
        embed_dataset(tokenized, other, name, workers=1)


def test_tokens_are_those_that_are_kept_in_memory(tokenized):
    for split in tokenized.splits:
        stored, bad = open_tokens(tokenized, split, Data())
        assert (stored.dtype, bad) == (np.uint16, 0)
        np.testing.assert_array_equal(stored.rows(), load_tokens(tokenized, split, Data()))
    with pytest.raises(DataError, match=r"data tokenize .*--length 9 --lower-case ascii --pad pad"):
        open_tokens(tokenized, SPLIT, Data(text_length=9, lower_case="ascii", pad="pad"))


DAMAGE = {
    "is truncated: it ends before row": lambda file: file[:-20],
    "cannot be read": lambda file: file[:50],
    "has shape": lambda file: npy(np.zeros((512, 3), np.float16)),
    "not floats": lambda file: npy(np.zeros((512, 16), np.int32)),
    "rows of float32, but tower.json": lambda file: npy(np.zeros((512, 16), np.float32)),
    "holds 511 rows": lambda file: npy(np.load(io.BytesIO(file))[:-1]),
    "such": lambda file: None,
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_file_is_one_line_when_its_rows_are_read(by_range, message):
    path = by_range.folder / "embeddings" / NAME / f"{SPLIT}-00001.npy"
    if (content := DAMAGE[message](read(path))) is None:
        unlink(path)
    else:
        put(path, content)
    if message == "such" and not hasattr(path, "fs"):
        message = "rows for train, which has"  # found when the folder is listed
    with pytest.raises(DataError, match=message) as error:
        open_source(by_range, SPLIT, IMAGE, Data()).batch(np.array([0, 1023]))
    assert "\n" not in str(error.value)
    assert f"{SPLIT}-00001" in str(error.value) or "which has" in message


def test_rows_that_nobody_reported_are_refused_and_a_changed_file_is_found(by_range):
    path = by_range.folder / "embeddings" / NAME / f"{SPLIT}-00001.npy"
    rows_NxE = np.load(io.BytesIO(read(path)))
    rows_NxE[7] = np.nan
    put(path, npy(rows_NxE))
    source = open_source(by_range, SPLIT, IMAGE, Data())
    with pytest.raises(DataError, match=r"NaN or infinite rows.*train-00001\.npy"):
        source.batch(np.arange(500, 600))
    with pytest.raises(DataError, match=r"train-00001\.npy has changed"):
        verify_rows(path.parent, TOWER_FILE)


def test_a_file_of_another_program_is_read_from_a_bucket(in_bucket, embedded):
    rows_NxE = CachedEmbeddings.open(embedded, NAME, SPLIT).rows()
    folder = in_bucket.folder / "embeddings" / "theirs"
    put(folder / f"{SPLIT}.npy", npy(rows_NxE.astype(np.float32)))
    metadata = {"dim": 16, "dataset_fingerprint": in_bucket.fingerprint}
    put(folder / TOWER_FILE, json.dumps(metadata).encode())
    theirs = CachedEmbeddings.open(in_bucket, "theirs", SPLIT).rows()
    np.testing.assert_array_equal(theirs, rows_NxE.astype(np.float32))


ROWS, SHARDS = 4_000_000_000, 40_000


def test_memory_does_not_grow_with_rows(tmp_path):
    """Four billion rows of 1,408, of which three files exist, with holes in place of their rows."""
    dim, rows = 1408, ROWS // SHARDS
    shards = [Shard(f"train-{k:05d}.npy", rows) for k in range(SHARDS)]
    index_N = np.array([0, 5, ROWS // 2, ROWS - 1])
    for i in index_N:
        path = tmp_path / shards[i // rows].name
        header = io.BytesIO()
        description = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(header, description)
        with path.open("wb") as file:
            file.write(header.getvalue())
            file.truncate(len(header.getvalue()) + rows * dim * 2)
    tracemalloc.start()
    stored = RowShards(tmp_path, shards, layout(dim))
    assert len(stored) == ROWS and not stored.take(index_N).any()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4e6 and peak < 10e6
