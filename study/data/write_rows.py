"""Writes an array with a row for each example of a data set, shard by shard.

The files are described in `study.data.row_files`. A shard's file appears when it is complete and is
not made again, so a killed run continues where it stopped. Many machines may write into one folder,
on a disk or in a bucket, each a part of the shards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from study.data.errors import DataError
from study.data.formats.dataset import Dataset
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.row_files import MAX_LISTED, Layout, map_rows
from study.records.record import atomic_write, read_json, write_json
from study.records.storage import is_bucket, listdir, mkdir, write_new

BEGUN_FILE = "begun.json"
_READS_AT_ONCE = 32

# make(dataset, split, number) makes the rows of a shard, N x W, and the reasons of bad ones by row.
MakeFn = Callable[[Dataset, str, int], tuple[np.ndarray, dict[int, str]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """An array to write.

    Attributes:
      folder: where, on a disk or in a bucket.
      metadata: what identifies the array; the index begins with it.
      make: picklable if several processes make rows.
      action: of messages, such as "embedding".
      bad: what the bad examples lack, in the plural.
    """

    folder: Path
    layout: Layout
    metadata: dict[str, Any]
    make: MakeFn
    action: str
    bad: str


def write_rows(
    dataset: Dataset,
    array: Array,
    *,
    splits: Sequence[str],
    workers: int,
    max_bad_share: float,
    part: tuple[int, int] = (0, 1),
    progress: ProgressFn = no_progress,
) -> Path:
    """Makes the rows of all examples that no file has yet, and returns the folder.

    Arguments:
      workers: processes.
      max_bad_share: largest share of a split's examples that may be bad.
      part: (k, n): only every n-th shard from the k-th on, for n machines. Whichever finds all
        shards written finishes the folder.

    Raises:
      DataError: the folder holds another array; a damaged shard, too many bad examples, or a disk
        that is full or read-only.
    """
    folder, index_file = array.folder, array.layout.recorded
    # Tuples become lists, as when it is read back.
    metadata = json.loads(json.dumps(array.metadata))
    try:
        mkdir(folder)
        _claim_folder(folder, index_file, metadata)
        tasks = [
            _Task(dataset=dataset, array=array, split=split, number=k)
            for split in splits
            for k in range(len(dataset.split(split).shards))
        ]
        files = _files(folder)
        mine = tasks[part[0] :: part[1]]
        missing = [task for task in mine if not task.is_done(files)]
        for done, _ in enumerate(map_unordered(_write, missing, workers=workers), start=1):
            progress(array.action, len(mine) - len(missing) + done, len(mine))
        files = _files(folder)
        if index_file not in files and all(task.is_done(files) for task in tasks):
            entries = _collect(dataset, array, tasks, max_bad_share)
            write_json(folder / index_file, metadata | {"shards": entries})
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; make room and run again "
            "(finished shards are kept)"
        ) from None
    return folder


def _files(folder: Path) -> set[str]:
    return {path.name for path in listdir(folder)}


def _collect(
    dataset: Dataset, array: Array, tasks: Sequence[_Task], max_bad_share: float
) -> dict[str, dict[str, Any]]:
    """The entries of all files; without the reasons of bad rows if these are many."""

    def read_entry(task: _Task) -> dict[str, Any]:
        return read_json(task.path.with_suffix(".json")) or {}

    entries: dict[str, dict[str, Any]] = {}
    bad: Counter[str] = Counter()  # by split
    first: dict[str, str] = {}
    reasons: list[dict[str, Any]] = []  # entries that list theirs
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for task, entry in zip(tasks, pool.map(read_entry, tasks), strict=True):
            entries[task.path.stem] = entry
            if entry["bad"]:
                bad[task.split] += len(entry["bad"])
                first.setdefault(task.split, next(iter(entry["bad"].values())))
                reasons.append(entry)
            if bad.total() > MAX_LISTED:
                for counted in reasons:
                    counted["bad_rows"] = len(counted.pop("bad"))
                reasons.clear()
    for split, count in bad.items():
        examples = dataset.split(split).examples
        if count > max_bad_share * examples:
            raise DataError(
                f"{count} of the {examples:,} {array.bad} of {split} cannot be used, more than "
                f"{max_bad_share:.2%}; the first: {first[split]}; or allow more (--max-bad-share)"
            )
    return entries


# --- one shard ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """One shard of the data set whose rows are to be made."""

    dataset: Dataset
    array: Array
    split: str
    number: int

    @property
    def path(self) -> Path:
        return self.array.folder / f"{self.split}-{self.number:05d}.npy"

    def is_done(self, files: set[str]) -> bool:
        """Whether its file is among those of the folder and, on a disk, is whole."""
        # The JSON is written before the rows, so its absence means an interrupted write.
        if not {self.path.name, f"{self.path.stem}.json"} <= files:
            return False
        if is_bucket(self.path):  # where an object is whole or absent
            return True
        try:
            map_rows(self.path, self.array.layout)
        except DataError:
            return False
        return True


def _write(task: _Task) -> None:
    rows_NxW, bad = task.array.make(task.dataset, task.split, task.number)
    buffer = io.BytesIO()
    np.save(buffer, rows_NxW)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    write_json(
        task.path.with_suffix(".json"),
        {"rows": len(rows_NxW), "sha256": digest, "bad": {str(i): r for i, r in bad.items()}},
    )
    with atomic_write(task.path) as file:
        file.write(buffer.getbuffer())


def _claim_folder(folder: Path, index_file: str, metadata: dict[str, Any]) -> None:
    """Marks the folder as that of this array.

    Raises:
      DataError: it holds another one, which may be days of work and is never removed here.
    """
    begun = read_json(folder / BEGUN_FILE)
    if begun is None:
        files = _files(folder)
        if index_file in files or any(name.endswith(".npy") for name in files):
            raise DataError(
                f"{folder} holds other rows (made by another program); remove it or choose another "
                "folder name"
            )
        if not is_bucket(folder):
            write_json(folder / BEGUN_FILE, metadata)
            return
        if write_new(folder / BEGUN_FILE, json.dumps(metadata, indent=1).encode()):
            return
        begun = read_json(folder / BEGUN_FILE) or {}
    changes = "; ".join(
        f"{key} was {str(begun.get(key))[:24]}, is {str(metadata.get(key))[:24]}"
        for key in {**metadata, **begun}
        if begun.get(key) != metadata.get(key)
    )
    if changes:
        raise DataError(
            f"{folder} holds other rows ({changes}); remove it or choose another folder name"
        )
