"""`.npy` shards of the rows of one array, and the index of their folder.

    <folder>/<index>.json        written last: metadata, and under "shards", by the stem of each
                                 file: its rows, its SHA-256 and the reasons of its bad rows
             train-00000.npy     N x W, one file for each shard of the data set
             train-00000.json    the entry of this file

Embeddings and tokens are kept so: `study.data.write_rows` writes them, `study.data.row_shards`
reads them.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from study.data.errors import DataError
from study.data.files import sha256 as sha256_object
from study.records.record import read_json
from study.records.storage import is_bucket, listdir

HEADER_BYTES = 128  # of a .npy file of a two-dimensional array of plain numbers
# Reasons that an index lists; with more, it has the number of bad rows of each file instead.
MAX_LISTED = 10_000
_REDO = "remove it and run the command that made it again"
_KINDS = {"f": "floats", "u": "tokens", "i": "tokens"}


class Layout(NamedTuple):
    """What the files of a folder must hold, and what messages say.

    Attributes:
      width: W.
      dtype: of files whose length is known; others have that of their header.
      recorded: the file that records both.
      redo: how to make a file again.
    """

    width: int
    dtype: np.dtype[Any]
    recorded: str
    redo: str


class Shard(NamedTuple):
    """One file of a folder: its name and its number of rows; None if that is unknown."""

    name: str
    rows: int | None


class Index(NamedTuple):
    """What the index of a folder says of one split.

    Attributes:
      metadata: all but the shards.
      shards: the files of the split in order.
      bad: the reasons of bad rows by file and row; None if there are too many to be listed.
      bad_rows: their number.
    """

    metadata: dict[str, Any]
    shards: list[Shard]
    bad: dict[str, dict[str, str]] | None
    bad_rows: int


def read_index(folder: Path, name: str, split: str) -> Index | None:
    """Reads the index `name` of `folder`; None if it is missing, because the folder is unfinished.

    In a bucket nothing else is read, unless another program wrote the folder.
    """
    metadata = read_json(folder / name)
    if metadata is None:
        return None
    entries: Mapping[str, dict[str, Any]] = metadata.pop("shards", {})
    names = [f"{stem}.npy" for stem in entries]
    if not names or not is_bucket(folder):
        names = [path.name for path in listdir(folder)]
    of_split = re.compile(re.escape(split) + r"-\d+\.npy")
    # By number: from 100,000 on it has more digits.
    shards = sorted(filter(of_split.fullmatch, names), key=lambda name: (len(name), name))
    shards = [f"{split}.npy"] if f"{split}.npy" in names else shards
    stated = {name: entries.get(name.removesuffix(".npy"), {}) for name in shards}
    bad = {name: entry["bad"] for name, entry in stated.items() if entry.get("bad")}
    uncounted = any("bad_rows" in entry for entry in stated.values())
    return Index(
        metadata=metadata,
        shards=[Shard(name, entry.get("rows")) for name, entry in stated.items()],
        bad=None if uncounted else bad,
        bad_rows=sum(entry.get("bad_rows", len(entry.get("bad", {}))) for entry in stated.values()),
    )


def verify_rows(folder: Path, name: str) -> None:
    """Compares the files of a finished folder with the SHA-256 in its index `name`.

    Raises:
      DataError: the first file that differs or is missing.
    """
    entries = (read_json(folder / name) or {}).get("shards", {})
    files = {path.name for path in listdir(folder)}

    def digest(stem: str) -> str:
        path = folder / f"{stem}.npy"
        if path.name not in files:
            raise DataError(f"{path} is missing; {_REDO}")
        if is_bucket(path):
            return sha256_object(path)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    with ThreadPoolExecutor(2) as pool:  # hashing releases the GIL
        for stem, sha256 in zip(entries, pool.map(digest, entries), strict=True):
            if sha256 != entries[stem]["sha256"]:
                raise DataError(f"{folder / stem}.npy has changed since it was written; {_REDO}")


def map_rows(path: Path, layout: Layout) -> np.ndarray:
    """Memory-maps a file.

    Raises:
      DataError: a file that cannot be read, or that holds another type or width.
    """
    try:
        rows_NxW = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); {layout.redo}") from None
    _check(path, layout, rows_NxW.shape, rows_NxW.dtype)
    return rows_NxW


def parse_header(path: Path, data: bytes, layout: Layout) -> tuple[int, np.dtype[Any]]:
    """Rows and type of a file, from its first `HEADER_BYTES` bytes.

    Raises:
      DataError: other bytes, or another type or width.
    """
    stream = io.BytesIO(data[:HEADER_BYTES])
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0 of .npy")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
        if by_column or stream.tell() != HEADER_BYTES:
            raise ValueError("an unusual header of .npy")
    except (ValueError, EOFError) as error:
        reason = (str(error) or "no header").splitlines()[0]
        raise DataError(f"{path} cannot be read ({reason}); {layout.redo}") from None
    _check(path, layout, shape, dtype)
    return shape[0], dtype


def _check(path: Path, layout: Layout, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind != layout.dtype.kind:
        kind = _KINDS[layout.dtype.kind]
        raise DataError(f"{path} holds {dtype}, not {kind}; {layout.redo}")
    if len(shape) != 2 or shape[1] != layout.width:
        raise DataError(
            f"{path} has shape {shape}, but {layout.recorded} records N x {layout.width}; "
            f"{layout.redo}"
        )
