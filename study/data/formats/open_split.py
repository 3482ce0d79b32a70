"""Opens the shards of a split in either format: webdataset tar or ArrayRecord."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from study.data import files
from study.data.formats.array_record import SUFFIX, ArrayRecordReader
from study.data.formats.dataset import HINT, DataError, Dataset, Split
from study.data.formats.reader import Reader
from study.data.formats.webdataset import WebdatasetReader
from study.data.local_cache import Copies


def open_split(dataset: Dataset, split: str, *, copy: bool = True) -> Reader:
    """Opens the examples of a split.

    Arguments:
      copy: copy shards from a bucket to this machine if the whole split fits into the data cache.

    Raises:
      DataError: an unknown split, shards of an unknown or of several formats, a shard that cannot
        be read, or another number of examples than in dataset.json.
    """
    entry = dataset.split(split)
    if entry.images is not None:
        from study.data.formats.pairs import PairsReader  # needs pyarrow, which is slow to import

        return PairsReader(
            open_split(dataset, entry.images, copy=copy), files.local_copy(*entry.shards)
        )
    formats = {is_array_record(path) for path in entry.shards}
    if len(formats) > 1:
        raise DataError(
            f"the split {split} of {dataset.folder} mixes tar and ArrayRecord; "
            "define splits of one format each in its dataset.json"
        )
    copies = _copies(dataset, entry) if copy else None
    reader: Reader
    if True in formats:
        reader = ArrayRecordReader(
            entry.shards,
            image_key=dataset.image_key,
            text_key=dataset.text_key,
            counts=entry.counts,
            copies=copies,
        )
    else:
        reader = WebdatasetReader(
            entry.shards,
            text_key=dataset.text_key,
            cache=dataset.index_cache,
            counts=entry.counts,
            stats=dataset.stats,
            copies=copies,
        )
    if len(reader) != entry.examples:
        raise DataError(
            f"the shards of {split} in {dataset.folder} hold {len(reader)} examples, "
            f"dataset.json records {entry.examples}; {HINT}"
        )
    return reader


def _copies(dataset: Dataset, split: Split) -> Copies | None:
    stats = {path: dataset.stats[path] for path in split.shards if files.is_bucket(path)}
    return Copies(f"{dataset.folder}, {split.name}", stats) if stats else None


def read_image_rows(dataset: Dataset, split: str) -> np.ndarray | None:
    """For a split of pairs, the image of each row (a number in the split `images`), int64 N.

    Raises:
      DataError: a table that cannot be read, or that names an image which does not exist.
    """
    entry = dataset.split(split)
    if entry.images is None:
        return None
    from study.data.formats import pairs

    path = files.local_copy(*entry.shards)
    return pairs.image_rows(
        pairs.read_table(path, ["image"]), path, dataset.split(entry.images).examples
    )


def open_shard(dataset: Dataset, split: str, number: int) -> Reader:
    """Opens the examples of one shard of a split, to be read once."""
    whole = dataset.split(split)
    path = whole.shards[number]
    if whole.counts is None:
        return WebdatasetReader(
            [path], text_key=dataset.text_key, cache=dataset.index_cache, stats=dataset.stats
        )
    count = whole.counts[number]
    part = Split(name=split, shards=(path,), examples=count, counts=(count,))
    return open_split(dataclasses.replace(dataset, splits={split: part}), split, copy=False)


def is_array_record(path: Path) -> bool:
    """Whether a shard is ArrayRecord, by its name: `coco-train.array_record-00000-of-00010`.

    Raises:
      DataError: the name is not that of a shard.
    """
    if path.suffix == ".tar":
        return False
    if SUFFIX in path.name:
        return True
    raise DataError(f"{path} is not a shard: its name has neither .tar nor {SUFFIX}")
