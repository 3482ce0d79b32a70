"""Data sets in a bucket: the same examples as on disk, in long runs, within bounds."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest

from study.config import Data, ViT
from study.data import files, local_cache, range_file, ranges
from study.data.errors import DataError
from study.data.formats.dataset import Dataset
from study.data.formats.index_shards import index_shards
from study.data.formats.open_split import open_split
from study.data.formats.tar_index import load_or_scan
from study.data.formats.webdataset import write_shard
from study.data.read_ahead import ReadAhead
from study.data.sources import ImageSource
from study.records.storage import unlink


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(local_cache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def remote(gcs, small, tmp_path_factory):
    """The small glyphs in a bucket, as `gcloud storage rsync` copies them."""
    bucket = gcs.bucket()
    folder = tmp_path_factory.mktemp("upload") / "glyphs"
    shutil.copytree(small.folder, folder, ignore=shutil.ignore_patterns("embeddings", "cache"))
    gcs.upload(bucket, folder, "glyphs")
    return files.to_path(f"gs://{bucket}/glyphs")


@pytest.fixture
def by_ranges(monkeypatch):
    """No room for whole shards."""
    monkeypatch.setenv(local_cache.GIGABYTES, "0")


def test_the_same_data_set(remote, small):
    dataset = Dataset.open(remote)
    assert dataset.fingerprint == small.fingerprint
    assert dataset.class_names == small.class_names
    assert [path.name for path in dataset.split("train").shards] == [
        path.name for path in small.split("train").shards
    ]
    with pytest.raises(DataError, match=r"no data set at gs://.*/glyphs/none; put shards there"):
        Dataset.open(remote / "none")


def test_examples_one_by_one_and_ahead(remote, small, by_ranges):
    disk = open_split(small, "train")
    reader = open_split(Dataset.open(remote), "train")
    index_N = np.random.default_rng(0).permutation(len(disk))[:300]
    assert reader[int(index_N[0])] == disk[int(index_N[0])]
    before = ranges.counts["requests"]
    reader.prefetch(index_N)
    for i in index_N.tolist():
        assert reader.pair(i) == disk.pair(i)
    assert ranges.counts["requests"] - before < 20
    assert reader._ahead.held == 0


def test_sources_read_the_same_pixels_and_tokens(remote, small, by_ranges):
    data, image = Data(dataset="glyphs", text_length=8), ViT(image_size=28)
    index_N = np.random.default_rng(1).integers(0, small.split("train").examples, 400)
    for keep in (False, True):
        disk = ImageSource(small, "train", image, data, keep=keep)
        bucket = ImageSource(Dataset.open(remote), "train", image, data, keep=keep)
        for hint in (True, False):
            if hint:
                bucket.prefetch(index_N)
            expected = disk.batch(index_N)
            for name, array in bucket.batch(index_N).items():
                np.testing.assert_array_equal(array, expected[name])


def test_what_is_unread_stays_within_the_budget(remote, small, by_ranges, monkeypatch):
    """Back pressure: a run is requested when the examples before it have been read."""
    budget = 40_000
    monkeypatch.setattr(ranges, "MAX_RUN", 10_000)
    monkeypatch.setattr(ranges, "MAX_GAP", 4_000)
    disk = open_split(small, "train")
    reader = open_split(Dataset.open(remote), "train")
    reader._ahead = ahead = ReadAhead(budget)
    index_N = np.arange(600)
    total = sum(len(disk.image(i)) for i in range(600))
    assert total > 3 * budget
    before = ranges.counts["requests"]
    reader.prefetch(index_N)
    peaks = []
    for i in index_N.tolist():
        assert reader.pair(i) == disk.pair(i)
        peaks.append(ahead.held)
    assert budget / 2 < max(peaks) <= budget
    assert ahead.held == 0
    assert ranges.counts["requests"] - before < 600 / 2


def test_unread_examples_are_forgotten_as_reading_goes_on(remote, by_ranges):
    reader = open_split(Dataset.open(remote), "train")
    for start in range(0, 1000, 100):
        reader.prefetch(np.arange(start, start + 100))
        for i in range(start, start + 50):  # the others were replaced, say
            reader.pair(i)
    unread = sum(len(f.spans) for window in reader._ahead._windows for f in window)
    assert unread == 3 * 50


def test_threads_share_what_was_fetched(remote, small, by_ranges):
    disk = open_split(small, "train")
    reader = open_split(Dataset.open(remote), "train")
    index = list(range(0, 800, 2))
    reader.prefetch(np.array(index))
    results: dict[int, object] = {}

    def read(part: list[int]) -> None:
        for i in part:
            results[i] = reader.pair(i)

    threads = [threading.Thread(target=read, args=(index[k::8],)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: disk.pair(i) for i in index}


def test_a_split_that_fits_is_copied_once(remote, small, cache):
    disk = open_split(small, "train")
    reader = open_split(Dataset.open(remote), "train")
    reader.prefetch(np.arange(len(disk)))
    assert [reader.pair(i) for i in range(0, len(disk), 7)] == [
        disk.pair(i) for i in range(0, len(disk), 7)
    ]
    before = ranges.counts["bytes"]
    again = open_split(Dataset.open(remote), "train")
    assert again.pair(5) == disk.pair(5)
    assert ranges.counts["bytes"] - before < 20_000  # dataset.json and the like


def test_a_split_too_large_for_the_cache_is_said_once(remote, small, monkeypatch, caplog):
    monkeypatch.setenv(local_cache.GIGABYTES, "0.00001")
    reader = open_split(Dataset.open(remote), "train")
    assert reader.pair(3) == open_split(small, "train").pair(3)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "study.data.local_cache"]
    assert "glyphs, train takes 0.0 GB, more than the data cache" in line
    monkeypatch.setenv(local_cache.GIGABYTES, "much")
    with pytest.raises(DataError, match="STUDY_DATA_CACHE_GB=much is not a number"):
        open_split(Dataset.open(remote), "train")


def test_an_index_of_shards_in_a_bucket_is_that_of_the_folder(gcs, indexed):
    """Two machines index the halves; the second one completes the data set."""
    bucket = gcs.bucket()
    gcs.upload(bucket, indexed.folder, "photos")
    root = files.to_path(f"gs://{bucket}/photos")
    for path in [root / "dataset.json", *files.expand(root, "*.index.npz")]:
        unlink(path)
    first = index_shards(root, workers=1, part=(0, 2))
    assert first.dataset is None
    last = len(indexed.split("train").shards) - 1
    pattern = f"{root}/{{00000..{last:05d}}}.tar"
    result = index_shards(
        pattern, out=root, tokenizer="sentencepiece.model", part=(1, 2), workers=1
    )
    assert result.dataset.fingerprint == indexed.fingerprint
    assert result.dataset.splits["train"].counts == indexed.splits["train"].counts
    again = index_shards(root, workers=1)
    assert again.dataset.fingerprint == indexed.fingerprint


def test_a_damaged_tar_in_a_bucket_is_one_line(gcs, folder):
    bucket = gcs.bucket()
    tar = folder / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:-9000])
    gcs.upload(bucket, folder, "photos")
    with pytest.raises(DataError, match=r"gs://.*/00000.tar is truncated or damaged .*byte \d+"):
        index_shards(f"gs://{bucket}/photos", workers=1)


def test_long_members_are_skipped_and_short_ones_read(gcs, tmp_path, monkeypatch):
    monkeypatch.setattr(range_file, "_JUMP", 1 << 20)
    rng = np.random.default_rng(0)
    for name, size in (("long", 3_000_000), ("short", 30_000)):
        images = [(f"{i}", {"png": rng.bytes(size), "txt": b"a"}) for i in range(6)]
        write_shard(tmp_path / f"{name}.tar", images)
    bucket = gcs.bucket()
    gcs.upload(bucket, tmp_path, "x")
    for name, requests, share in (("long", 8, 0.1), ("short", 3, 1.0)):
        path = files.to_path(f"gs://{bucket}/x/{name}.tar")
        unlink(path.with_name(f"{name}.tar.index.npz"))
        before = ranges.counts.copy()
        index = load_or_scan(path)
        local = load_or_scan(tmp_path / f"{name}.tar")
        np.testing.assert_array_equal(index.offsets_Nx3, local.offsets_Nx3)
        np.testing.assert_array_equal(index.keys_N, local.keys_N)
        assert ranges.counts["requests"] - before["requests"] <= requests
        assert ranges.counts["bytes"] - before["bytes"] <= share * files.stat(path).size


def test_a_file_of_ranges_reads_as_a_file(gcs, tmp_path, monkeypatch):
    """Whatever the pieces, reads are never short, as tarfile needs."""
    rng = np.random.default_rng(0)
    content = rng.bytes(50_000)
    (tmp_path / "a").write_bytes(content)
    bucket = gcs.bucket()
    gcs.upload(bucket, tmp_path, "x")
    monkeypatch.setattr(range_file, "_FIRST", 300)
    monkeypatch.setattr(range_file, "_JUMP", 1_000)
    monkeypatch.setattr(ranges, "MAX_RUN", 1_700)
    file = range_file.RangeFile(files.to_path(f"gs://{bucket}/x/a"), len(content))
    position = 0
    for _ in range(60):
        position = int(rng.integers(0, 51_000)) if rng.random() < 0.3 else position
        size = int(rng.integers(0, 3_000))
        file.seek(position)
        assert file.read(size) == content[position : position + size]
        position = file.tell()


def test_patterns_name_files(gcs, tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("a-09.tar", "a-10.tar", "b-09.tar", "b-10.tar", "c.tar"):
        (tmp_path / "x" / name).write_bytes(b"1")
    bucket = gcs.bucket()
    gcs.upload(bucket, tmp_path / "x", "x")
    for base in (tmp_path / "x", files.to_path(f"gs://{bucket}/x")):

        def names(patterns, base=base):
            return [path.name for path in files.expand(base, patterns)]

        assert names("{a,b}-{09..10}.tar") == ["a-09.tar", "a-10.tar", "b-09.tar", "b-10.tar"]
        assert names([f"{base}/a-*.tar", "a-1?.tar", "c.tar"]) == ["a-09.tar", "a-10.tar", "c.tar"]
        assert names("*-{9..10}.tar") == ["a-10.tar", "b-10.tar"]
        assert names("d*.tar") == names("d.tar") == []
        with pytest.raises(DataError, match=r"x/a-08.tar is missing \(1 of the 2 files that"):
            names("a-{08..09}.tar")


def test_damaged_images_in_a_bucket_are_replaced_as_on_disk(gcs, indexed, by_ranges):
    tar = indexed.split("train").shards[0]
    index = load_or_scan(tar)
    content = bytearray(tar.read_bytes())
    for row in (3, 4, 9):
        start, size = int(index.offsets_Nx3[row, 0]), int(index.sizes_Nx3[row, 0])
        content[start : start + size] = bytes(size)
    tar.write_bytes(content)
    bucket = gcs.bucket()
    gcs.upload(bucket, indexed.folder, "photos")
    data, image = Data(max_bad_share=0.2), ViT(image_size=16)
    disk = ImageSource(indexed, "train", image, data, keep=False)
    remote = ImageSource(Dataset.open(f"gs://{bucket}/photos"), "train", image, data, keep=False)
    index_N = np.arange(20)
    remote.prefetch(index_N)
    expected, batch = disk.batch(index_N), remote.batch(index_N)
    for name in expected:
        np.testing.assert_array_equal(batch[name], expected[name])
    assert remote.replacements.count_read(index_N) == disk.replacements.count_read(index_N) == 3
