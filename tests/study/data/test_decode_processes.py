"""Images decoded in other processes are those decoded here, and so are the bad ones."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from study.config import Data, ViT
from study.data import sources
from study.data.formats.dataset import DataError
from study.data.formats.index_shards import index_shards
from study.data.formats.open_split import open_split
from study.data.formats.webdataset import write_shard
from study.data.sources import ImageSource

LENIENT = Data(max_bad_share=0.5)


@pytest.fixture
def damaged(indexed, tmp_path):
    """A data set of photos, three of which end too early."""
    reader = open_split(indexed, "train")
    rows = []
    for i in range(len(reader)):
        image, text = reader.pair(i)
        image = image[: len(image) // 2 if i in (3, 40, 41) else None]
        rows.append((f"{i:05d}", {"png": image, "txt": text.encode()}))
    folder = tmp_path / "damaged"
    folder.mkdir()
    write_shard(folder / "0.tar", rows)
    return index_shards(folder, train_pieces=200, workers=1).dataset


def test_processes_decode_what_threads_decode_and_name_who_kills_them(damaged, monkeypatch):
    monkeypatch.setattr(sources, "_SMALL_FILE", 0)  # else one thread decodes them

    def source(data=LENIENT, **options):
        size = ViT(image_size=20)
        return ImageSource(damaged, "train", size, data, crop=0.8, keep=False, **options)

    here, there = source(threads=2), source(workers=1)
    index_N = np.arange(90) % here.size
    for name, array in here.batch(index_N).items():
        np.testing.assert_array_equal(there.batch(index_N)[name], array)
    each = [one.replacements.count_read(index_N) for one in (here, there)]
    assert each[0] == each[1] >= 3
    lines = []
    for options in ({"threads": 2}, {"workers": 1}):
        with pytest.raises(DataError, match="its image does not decode") as caught:
            source(Data(max_bad_share=0), **options).batch(np.array([0, 3]))
        lines.append(str(caught.value))
    assert lines[0] == lines[1]

    (process,) = there._decode_into._pool._processes
    os.kill(process, signal.SIGKILL)
    with pytest.raises(DataError, match=r"was killed .*--decode-workers"):
        while True:  # until it is noticed
            there.batch(index_N)
