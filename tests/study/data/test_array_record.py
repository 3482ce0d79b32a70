"""ArrayRecord folders as TFDS writes them: the same examples as from tars."""

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from study.config import Data, ViT
from study.data import local_cache
from study.data.formats.array_record import ArrayRecordReader, example_class
from study.data.formats.dataset import DataError
from study.data.formats.index_shards import index_shards
from study.data.formats.open_split import open_shard, open_split
from study.data.formats.reader import BadExampleError
from study.data.sources import open_source


def serialize(features):
    """A tf.train.Example of lists of one type each."""
    example = example_class()()
    for name, values in features.items():
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
        getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString(deterministic=True)


def write(path, rows):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for row in rows:
        writer.write(row if isinstance(row, bytes) else serialize(row))
    writer.close()


@pytest.fixture
def tfds(indexed, tmp_path):
    """The examples of the tars, as TFDS would have them, in two shards; and those of the tars."""
    reader = open_split(indexed, "train")
    rows = [
        {
            "image": [reader.image(i)],
            "captions/text": [reader.text(i).encode(), b"another"],
            "label": [i],
            "tfds_id": [b"id"],
            "box": [0.5, -2.0],
        }
        for i in range(len(reader))
    ]
    folder = tmp_path / "tfds"
    folder.mkdir()
    write(folder / "photos-train.array_record-00000-of-00002", rows[:20])
    write(folder / "photos-train.array_record-00001-of-00002", rows[20:])
    write(folder / "photos-val.array_record-00000-of-00001", rows[:8])
    return folder, reader


def test_a_tfds_folder_holds_the_examples_of_the_tars(tfds, indexed):
    folder, reader = tfds
    dataset = index_shards(folder, tokenizer=indexed.tokenizer, workers=1).dataset
    assert sorted(dataset.splits) == ["train", "val"]
    records = open_split(dataset, "train")
    assert isinstance(records, ArrayRecordReader)
    assert [e["text"] for e in records] == [e["text"] for e in reader]
    assert records.pair(25) == reader.pair(25)
    assert records.json(7) == {"label": 7, "class": 7, "tfds_id": "id", "box": [0.5, -2.0]}
    assert open_shard(dataset, "train", 1).pair(0) == reader.pair(20)
    one, two = (open_source(d, "train", ViT(image_size=16), Data()) for d in (dataset, indexed))
    index_N = np.array([30, 2, 19, 20])
    for name, value in two.batch(index_N).items():
        np.testing.assert_array_equal(one.batch(index_N)[name], value)


def test_records_that_are_no_examples_are_damaged_ones(tfds, tmp_path, indexed):
    _, reader = tfds
    good = {"image": [reader.image(0)], "caption": [b"ok"]}
    rows = [good, b"\xff\xff junk", {"image": [reader.image(0)]}, {**good, "caption": [b"\xff"]}]
    write(tmp_path / "a.array_record", rows)
    records = ArrayRecordReader([tmp_path / "a.array_record"])
    assert records.text(0) == "ok"
    for i, message in ((1, "not a tf.train.Example"), (2, "no text"), (3, "UTF-8")):
        with pytest.raises(BadExampleError, match=rf"a\.array_record: record {i}: .*{message}"):
            records.text(i)


def test_flipped_bytes_in_a_record_are_named(tmp_path):
    path = tmp_path / "a.array_record"
    write(path, [{"image": [b"i"], "caption": [f"caption {i}".encode()]} for i in range(5)])
    data = bytearray(path.read_bytes())
    at = data.index(b"caption 3")
    data[at : at + 9] = b"\xff" * 9
    path.write_bytes(data)
    records = ArrayRecordReader([path])
    assert records.text(2) == "caption 2"
    with pytest.raises(BadExampleError, match="record 3"):
        records.text(3)


def test_a_file_that_is_not_array_record_is_named(tmp_path, tfds):
    bad = tmp_path / "bad.array_record"
    bad.write_bytes(b"no record" * 10_000)
    for path in (bad, tmp_path / "none.array_record"):
        with pytest.raises(DataError, match=rf"{path.name}") as error:
            ArrayRecordReader([path])
        assert "\n" not in str(error.value)
    write(bad, [{"picture": [b""], "words": [b""]}])
    with pytest.raises(DataError, match=r"it has picture, words: name one with .*--image-key"):
        ArrayRecordReader([bad])
    assert ArrayRecordReader([bad], image_key="picture", text_key="words").text(0) == ""


@pytest.mark.parametrize("gigabytes", ["1", "0"])  # from copies, and in place
def test_a_tfds_folder_in_a_bucket(tfds, indexed, gcs, tmp_path, monkeypatch, gigabytes):
    folder, _ = tfds
    disk = index_shards(folder, tokenizer=indexed.tokenizer, workers=1).dataset
    (folder / "dataset.json").unlink()
    bucket = gcs.bucket()
    gcs.upload(bucket, folder, "tfds")
    monkeypatch.setenv(local_cache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(local_cache.GIGABYTES, gigabytes)
    root = f"gs://{bucket}/tfds"
    dataset = index_shards(root, tokenizer=indexed.tokenizer, workers=1).dataset
    assert dataset.fingerprint == disk.fingerprint
    records, expected = open_split(dataset, "train"), open_split(disk, "train")
    records.prefetch(np.arange(len(records)))
    assert [records.pair(i) for i in (30, 2, 19, 20)] == [expected.pair(i) for i in (30, 2, 19, 20)]
