"""Data sets in a bucket: the same examples as on disk, in long runs, within bounds."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest

from study.config import Data, ViT
from study.data import files, local_cache, ranges, read_ahead
from study.data.errors import DataError
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_split
from study.data.read_ahead import ReadAhead, Spans
from study.data.sources import ImageSource


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
    with pytest.raises(DataError, match=r"gs://.*/glyphs/none has no readable dataset.json"):
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
