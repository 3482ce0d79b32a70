"""Image-text shards: webdataset tars, written byte for byte the same, read in any order."""

from __future__ import annotations

import bisect
import itertools
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from study.data.formats import tar_index
from study.data.formats.dataset import HINT, DataError, Dataset
from study.data.formats.reader import Reader, check_length
from study.data.formats.tar_index import BLOCK, IMAGE, IMAGE_NAMES, JSON, TEXT, TarIndex, index_of
from study.records.record import atomic_write

_MOST_OPEN_FILES = 256


class WebdatasetReader(Reader):
    """Examples of webdataset tars. Threads and processes may share it.

    The index of a tar (48 bytes an example, and its key) is read when the tar is first met if
    `counts` says how many examples each holds, else at once.

    Arguments:
      text_key: the key of the caption in an example's JSON; None takes the `txt` member, and
        "caption", as img2dataset calls it, where there is none.
      cache: a folder for the indexes of tars whose own folder is read-only.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        text_key: str | None = None,
        cache: Path | None = None,
        counts: Sequence[int] | None = None,
    ):
        self.paths = tuple(Path(path) for path in paths)
        self._text_key, self._cache = text_key, cache
        self._indexes: dict[int, TarIndex] = {}
        if counts is None:
            self._indexes = {k: index_of(path, cache) for k, path in enumerate(self.paths)}
            counts = [len(self._indexes[k]) for k in range(len(self.paths))]
        self._counts = tuple(counts)
        self._ends = list(itertools.accumulate(self._counts))
        self._open()

    @classmethod
    def open(cls, dataset: Dataset, split: str) -> WebdatasetReader:
        """The reader of a split, whose number of examples must be the one in dataset.json."""
        about = dataset.split(split)
        reader = cls(
            about.shards, text_key=dataset.text_key, cache=dataset.index_cache, counts=about.counts
        )
        check_length(reader, dataset, split)
        return reader

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def key(self, i: int) -> str:
        shard, row = self._locate(i)
        return self._index(shard).keys_N[row].decode()

    def path(self, i: int) -> Path:
        return self.paths[self._locate(i)[0]]

    def image(self, i: int) -> bytes:
        data = self._member(i, IMAGE)
        if not data:
            raise self.bad_example(i, f"it has no image ({', '.join(IMAGE_NAMES)})")
        return data

    def text(self, i: int) -> str:
        data = None if self._text_key else self._member(i, TEXT)
        if data is not None:
            try:
                return data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self.bad_example(i, f"its text is not UTF-8 ({error.reason})") from None
        key = self._text_key or "caption"
        text = self.json(i).get(key)
        if not isinstance(text, str):
            txt = "" if self._text_key else "txt, or "
            raise self.bad_example(i, f'it has no text ({txt}"{key}" in its json)')
        return text

    def json(self, i: int) -> dict[str, Any]:
        data = self._member(i, JSON)
        try:
            about = json.loads(data) if data else {}
        except ValueError:
            raise self.bad_example(i, "its metadata is not JSON") from None
        return about if isinstance(about, dict) else {}

    # --- files ----------------------------------------------------------------------------------

    def _locate(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        shard = bisect.bisect_right(self._ends, i)
        return shard, i - (self._ends[shard - 1] if shard else 0)

    def _index(self, shard: int) -> TarIndex:
        index = self._indexes.get(shard)
        if index is not None:
            return index
        with self._lock:
            one = self._scans.setdefault(shard, threading.Lock())
        with one:  # of several threads that meet a tar one scans it
            if shard not in self._indexes:
                index = index_of(self.paths[shard], self._cache)
                if len(index) != self._counts[shard]:
                    raise DataError(
                        f"{self.paths[shard]} holds {len(index)} examples, dataset.json says "
                        f"{self._counts[shard]}; if the tar is right, run `study data index` again"
                    )
                self._indexes[shard] = index
            return self._indexes[shard]

    def _member(self, i: int, column: int) -> bytes | None:
        """The bytes of a member, None where the example has none such."""
        shard, row = self._locate(i)
        index = self._index(shard)
        offset, size = int(index.offsets_Nx3[row, column]), int(index.sizes_Nx3[row, column])
        if size <= 0:
            return None if size < 0 else b""
        data = self._read(shard, offset, size)
        if len(data) != size:
            raise self.bad_example(i, f"the tar ends before byte {offset + size}")
        return data

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        handle = self._handles.get(shard)
        try:
            if handle is not None:
                return os.pread(handle, size, offset)
            handle = os.open(self.paths[shard], os.O_RDONLY)
            with self._lock:
                keep = shard not in self._handles and len(self._handles) < _MOST_OPEN_FILES
                if keep:
                    self._handles[shard] = handle
            try:
                return os.pread(handle, size, offset)
            finally:
                if not keep:
                    os.close(handle)
        except OSError as error:
            raise DataError(f"{self.paths[shard]}: {error.strerror or error}; {HINT}") from None

    def _open(self) -> None:
        self._handles: dict[int, int] = {}
        self._lock = threading.Lock()
        self._scans: dict[int, threading.Lock] = {}

    def close(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __del__(self) -> None:
        if "_handles" in self.__dict__:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in ("_handles", "_lock", "_scans")}
        return state | {"_indexes": dict(self._indexes)}  # another thread may be adding one

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


# --- writing ------------------------------------------------------------------------------------

# A ustar header but for name, size and checksum: owner, group and time are always zero.
_MODE = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
_REST = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
_SUM = sum(_MODE) + sum(_TIME) + sum(_REST) + 8 * ord(" ")


def write_shard(path: Path, examples: Iterable[tuple[str, Mapping[str, bytes]]]) -> int:
    """Writes a tar and its index from keys and their {"png": ..., "txt": ..., "json": ...}.

    The same examples give the same bytes. The tar appears under its name only when it is whole.
    Returns the number of examples.

    Raises:
      DataError: the disk is full or read-only.
      ValueError: a name longer than the 100 bytes of a plain tar header.
    """
    keys, where = [], []
    try:
        with atomic_write(path) as file:
            at = 0
            for key, members in examples:
                row = [(0, -1)] * 3
                for kind, data in members.items():
                    header = _header(f"{key}.{kind}".encode(), len(data))
                    padding = bytes(-len(data) % BLOCK)
                    file.write(b"".join((header, data, padding)))
                    column = {"txt": TEXT, "json": JSON}.get(kind, IMAGE)
                    row[column] = (at + BLOCK, len(data))
                    at += BLOCK + len(data) + len(padding)
                keys.append(key.encode())
                where.append(row)
            file.write(bytes(2 * BLOCK))
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder "
            "and run again (complete shards are kept)"
        ) from None
    where_Nx3x2 = np.array(where, np.int64).reshape(-1, 3, 2)
    tar_index.save(
        path,
        TarIndex(
            keys_N=np.array(keys, np.bytes_),
            offsets_Nx3=where_Nx3x2[..., 0],
            sizes_Nx3=where_Nx3x2[..., 1],
        ),
    )
    return len(keys)


def _header(name: bytes, size: int) -> bytes:
    if len(name) > 100:
        raise ValueError(f"{name.decode()} is longer than the 100 bytes that a tar header has")
    digits = b"%011o\0" % size
    checksum = b"%06o\0 " % (_SUM + sum(name) + sum(digits))
    return b"".join((name.ljust(100, b"\0"), _MODE, digits, _TIME, checksum, _REST))
