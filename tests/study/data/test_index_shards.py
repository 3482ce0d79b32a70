"""Existing shards become a data set by one scan and are not changed."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from study.config import Data, ViT
from study.data.formats import tar_index
from study.data.formats.dataset import DATASET_FILE, DataError, Dataset
from study.data.formats.index_shards import index_shards
from study.data.formats.open_split import open_split
from study.data.formats.webdataset import WebdatasetReader
from study.data.sources import open_source
from study.data.tokenizer import train_tokenizer


def test_an_img2dataset_folder_needs_one_command(folder):
    before = {p.name: p.read_bytes() for p in folder.glob("*.tar")}
    result = index_shards(folder, train_pieces=200)
    dataset = result.dataset
    assert (result.incomplete, result.skipped, dataset.channels) == (0, (), 3)
    reader = WebdatasetReader([folder / name for name in sorted(before)])
    assert dataset.split("train").examples == len(reader) == sum(dataset.split("train").counts)
    assert [e["text"] for e in open_split(dataset, "train")] == [e["text"] for e in reader]
    assert {p.name: p.read_bytes() for p in folder.glob("*.tar")} == before
    batch = open_source(dataset, "train", ViT(image_size=16), Data()).batch(np.arange(5))
    assert batch["image"].shape == (5, 16, 16, 3)
    with pytest.raises(DataError, match=r"--hash"):
        dataset.verify()
    index_shards(folder, hash_files=True, workers=1).dataset.verify()


def test_indexing_again_changes_nothing_and_another_example_changes_the_fingerprint(indexed):
    before = (indexed.folder / DATASET_FILE).read_bytes()
    assert index_shards(indexed.folder, workers=1).dataset.fingerprint == indexed.fingerprint
    assert (indexed.folder / DATASET_FILE).read_bytes() == before
    indexed.split("train").shards[-1].unlink()
    assert index_shards(indexed.folder, workers=1).dataset.fingerprint != indexed.fingerprint


def test_a_description_of_two_entries_is_completed(folder):
    (folder / "mine.model").write_bytes(train_tokenizer(["some words of a caption"] * 9))
    manifest = {
        "splits": {"train": {"shards": ["0*[02].tar"]}, "val": {"shards": "00001.tar"}},
        "tokenizer": "mine.model",
        "name": "ours",
    }
    (folder / DATASET_FILE).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=rf"study data index {folder}"):
        Dataset.open(folder)
    dataset = index_shards(folder, workers=1).dataset
    assert dataset.name == "ours"
    assert [p.name for p in dataset.split("val").shards] == ["00001.tar"]
    assert "00001.tar" not in [p.name for p in dataset.split("train").shards]


def test_shards_elsewhere_are_described_by_a_pattern_and_left_alone(folder, tmp_path, monkeypatch):
    save = np.savez

    def beside_is_read_only(file, **arrays):
        if Path(file.name).parent == folder:
            raise PermissionError(13, "Permission denied")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", beside_is_read_only)
    names = sorted(p.name for p in folder.iterdir())
    out = tmp_path / "out"
    dataset = index_shards(f"{folder}/*.tar", out=out, train_pieces=200, workers=1).dataset
    assert sorted(p.name for p in folder.iterdir()) == names

    def refuse(tar):
        raise AssertionError(f"{tar} scanned again")

    monkeypatch.setattr(tar_index, "_scan", refuse)
    assert len([e["text"] for e in open_split(dataset, "train")]) == dataset.split("train").examples
    with pytest.raises(DataError, match=r"name a folder for its dataset\.json with --out"):
        index_shards(f"{folder}/*.tar")


def test_names_of_files_tell_the_splits(folder):
    (folder / "00000.tar").rename(folder / "val-00000.tar")
    dataset = index_shards(folder, train_pieces=200, workers=1).dataset
    assert sorted(dataset.splits) == ["train", "val"]
    chosen = index_shards(folder, splits={"all": "*.tar"}, workers=1).dataset
    assert list(chosen.splits) == ["all"]


def test_damaged_tars_are_counted_named_and_left_out_only_on_request(folder):
    torn = folder / "00001.tar"
    os.truncate(torn, 5000)
    with pytest.raises(DataError, match=r"1 of \d shards are damaged.*00001\.tar.*--skip-damaged"):
        index_shards(folder, train_pieces=200, workers=1)
    result = index_shards(folder, train_pieces=200, skip_damaged=True, workers=1)
    assert len(result.skipped) == 1
    assert torn not in result.dataset.split("train").shards


def test_a_tar_that_changed_after_the_scan_is_refused(indexed):
    first, second = indexed.split("train").shards[:2]
    with tarfile.open(first, "a") as archive:
        archive.addfile(tarfile.TarInfo("more.json"))
    reader = open_split(Dataset.open(indexed.folder), "train")
    assert reader.text(40)  # of the second, whose index is all that was read
    with pytest.raises(DataError, match=r"00000\.tar holds 33 examples, dataset\.json records 32"):
        reader.text(0)
    assert second.exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: [p.unlink() for p in folder.glob("*.tar")], "no shards"),
        (lambda folder: (folder / DATASET_FILE).write_text("{"), "not a JSON object"),
        (lambda folder: (folder / DATASET_FILE).write_text('{"splits": {"a": ["b*"]}}'), "split a"),
        (lambda folder: None, "--train-tokenizer 32000"),
        (lambda folder: (folder / "a.model").write_bytes(b"?"), "not a SentencePiece model"),
    ],
)
def test_errors_are_one_line(folder, prepare, message):
    prepare(folder)
    with pytest.raises(DataError, match=message) as error:
        index_shards(folder, workers=1)
    assert "\n" not in str(error.value)


def test_a_data_set_that_was_made_here_is_not_indexed(copy):
    before = hashlib.sha256((copy / DATASET_FILE).read_bytes()).digest()
    with pytest.raises(DataError, match="was described by the program that wrote it"):
        index_shards(copy)
    assert hashlib.sha256((copy / DATASET_FILE).read_bytes()).digest() == before
