"""Opens the examples of a split, in whichever of the formats it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from study.data.formats.array_record import SUFFIX, ArrayRecordReader
from study.data.formats.dataset import DataError, Dataset, Split
from study.data.formats.reader import Reader
from study.data.formats.webdataset import WebdatasetReader


def open_split(dataset: Dataset, split: str) -> Reader:
    """The examples of a split, whose number must be the one in dataset.json.

    Raises:
      DataError: no such split, shards of no or of several formats, a shard that cannot be read.
    """
    kinds = {is_array_record(path) for path in dataset.split(split).shards}
    if len(kinds) > 1:
        raise DataError(
            f"the split {split} of {dataset.folder} mixes tar and ArrayRecord; "
            "name splits of one format each in its dataset.json"
        )
    return (
        ArrayRecordReader.open(dataset, split)
        if True in kinds
        else WebdatasetReader.open(dataset, split)
    )


def open_shard(dataset: Dataset, split: str, number: int) -> Reader:
    """The examples of one shard of a split, in order."""
    whole = dataset.split(split)
    shard = whole.shards[number]
    if whole.counts is not None:
        count = whole.counts[number]
        part = Split(name=split, shards=(shard,), examples=count, counts=(count,))
        return open_split(dataclasses.replace(dataset, splits={split: part}), split)
    return WebdatasetReader([shard], text_key=dataset.text_key, cache=dataset.index_cache)


def is_array_record(path: Path) -> bool:
    """Whether TFDS would give such a file this name: `coco-train.array_record-00000-of-00010`.

    Raises:
      DataError: it is no shard at all.
    """
    if path.suffix == ".tar":
        return False
    if SUFFIX in path.name:
        return True
    raise DataError(f"{path} is no shard: its name has neither .tar nor {SUFFIX}")
