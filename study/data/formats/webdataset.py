"""webdataset tars: read in any order by byte range, and written reproducibly.

Of a tar in a bucket, examples are read from a copy on this machine if the whole split fits there
(`study.data.local_cache`), else from what was fetched ahead (`study.data.read_ahead`), else one by
one.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import os
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from study.data import files
from study.data.files import Stat
from study.data.formats import tar_index
from study.data.formats.dataset import HINT, DataError
from study.data.formats.reader import Reader
from study.data.formats.tar_index import BLOCK, IMAGE, IMAGE_NAMES, JSON, TEXT, TarIndex
from study.data.local_cache import Copies
from study.data.read_ahead import ReadAhead, Spans
from study.records.record import atomic_write

_MAX_OPEN_FILES = 256
_MAX_INDEX_BYTES = 1 << 30  # of indexes in memory; those used last stay
_THREADS = 16  # load indexes and copies from a bucket


class WebdatasetReader(Reader):
    """Examples of webdataset tars. Thread-safe.

    The index of a tar (48 bytes per example, and its key) is loaded at the first access to the tar
    if `counts` is known, else at once.

    Arguments:
      text_key: the key of the caption in an example's JSON; None takes the `txt` member, or
        "caption", img2dataset's key, if there is none.
      cache: a folder for indexes of tars whose own folder is read-only or in a bucket.
      counts: number of examples in each tar.
      stats: of tars in a bucket; None asks for them.
      copies: where tars of a bucket are copied to; None reads them by ranges.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        text_key: str | None = None,
        cache: Path | None = None,
        counts: Sequence[int] | None = None,
        stats: Mapping[Path, Stat] | None = None,
        copies: Copies | None = None,
    ):
        self.paths = tuple(files.to_path(path) for path in paths)
        self._text_key, self._cache, self._copies = text_key, cache, copies
        self._remote = [files.is_bucket(path) for path in self.paths]
        self._stats = stats
        if stats is None and any(self._remote):
            self._stats = files.stat_all(self.paths)
        self._indexes: OrderedDict[int, TarIndex] = OrderedDict()  # used last is last
        self._index_bytes = 0
        self._lock = threading.Lock()
        self._index_locks = [threading.Lock() for _ in self.paths]
        self._counts = tuple(counts) if counts is not None else None
        if counts is None:
            counts = [len(self._index(shard)) for shard in range(len(self.paths))]
            self._counts = tuple(counts)
        self._ends = list(itertools.accumulate(counts))
        self._handles: dict[int, int] = {}
        self._ahead = ReadAhead()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def key(self, i: int) -> str:
        shard, row = self._locate(i)
        return self._index(shard).keys_N[row].decode()

    def path(self, i: int) -> Path:
        return self.paths[self._locate(i)[0]]

    def image(self, i: int) -> bytes:
        try:
            return self._image(i)
        finally:
            self._ahead.drop(i)

    def pair(self, i: int) -> tuple[bytes, str]:
        try:
            return self._image(i), self.text(i)
        finally:
            self._ahead.drop(i)

    def prefetch(
        self, index_N: np.ndarray, *, image: bool = True, text: bool = True, json: bool = False
    ) -> None:
        if not any(self._remote):
            return
        index_N = self._ahead.missing(np.asarray(index_N, np.int64))
        example_N, rank_N = np.unique(index_N, return_index=True)
        shard_N = np.searchsorted(self._ends, example_N, side="right")
        shards = [shard for shard in np.unique(shard_N).tolist() if self._remote[shard]]
        if not shards:
            return
        with ThreadPoolExecutor(min(_THREADS, len(shards))) as pool:
            indexes = dict(zip(shards, pool.map(self._load, shards), strict=True))
        spans = []
        for shard, index in indexes.items():
            if index is not None:
                chosen_N = np.flatnonzero(shard_N == shard)
                row_N = example_N[chosen_N] - (self._ends[shard - 1] if shard else 0)
                columns_Nx3 = self._columns(index, row_N, image=image, text=text, json=json)
                start_N, size_N = index.spans(row_N, columns_Nx3)
                path = self.paths[shard]
                spans.append(Spans(path, example_N[chosen_N], rank_N[chosen_N], start_N, size_N))
        self._ahead.request(spans)

    def _load(self, shard: int) -> TarIndex | None:
        """Makes sure that a shard can be read; returns its index unless there is a copy of it."""
        index = self._index(shard)
        return None if self._copy(shard) is not None else index

    def _columns(
        self, index: TarIndex, row_N: np.ndarray, *, image: bool, text: bool, json: bool
    ) -> np.ndarray:
        """Which members of these examples will be read, bool N x 3."""
        txt_N = index.sizes_Nx3[row_N, TEXT] >= 0
        txt_N &= self._text_key is None
        columns_Nx3 = np.zeros((len(row_N), 3), bool)
        columns_Nx3[:, IMAGE] = image
        columns_Nx3[:, TEXT] = text & txt_N
        columns_Nx3[:, JSON] = json | (text & ~txt_N)
        return columns_Nx3

    def _image(self, i: int) -> bytes:
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
            metadata = json.loads(data) if data else {}
        except ValueError:
            raise self.bad_example(i, "its metadata is not JSON") from None
        return metadata if isinstance(metadata, dict) else {}

    def __del__(self) -> None:
        for handle in self.__dict__.get("_handles", {}).values():
            os.close(handle)
        if (ahead := self.__dict__.get("_ahead")) is not None:
            ahead.close()

    def _locate(self, i: int) -> tuple[int, int]:
        """Shard and row of an example."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        shard = bisect.bisect_right(self._ends, i)
        return shard, i - (self._ends[shard - 1] if shard else 0)

    def _index(self, shard: int) -> TarIndex:
        if (index := self._cached_index(shard)) is not None:
            return index
        with self._index_locks[shard]:  # one thread scans a tar, others may scan other tars
            if (index := self._cached_index(shard)) is not None:
                return index
            path = self.paths[shard]
            stat = self._stats.get(path) if self._stats is not None else None
            index = tar_index.load_or_scan(path, self._cache, stat=stat)
            if self._counts is not None and len(index) != self._counts[shard]:
                raise DataError(
                    f"{path} holds {len(index)} examples, dataset.json records "
                    f"{self._counts[shard]}; if the tar is right, run `study data index` again"
                )
            with self._lock:
                self._indexes[shard] = index
                self._index_bytes += index.nbytes
                while self._index_bytes > _MAX_INDEX_BYTES and len(self._indexes) > 1:
                    self._index_bytes -= self._indexes.popitem(last=False)[1].nbytes
            return index

    def _cached_index(self, shard: int) -> TarIndex | None:
        index = self._indexes.get(shard)
        if index is not None:
            with self._lock, contextlib.suppress(KeyError):  # removed a moment ago
                self._indexes.move_to_end(shard)
        return index

    def _member(self, i: int, column: int) -> bytes | None:
        """The bytes of a member; None if the example has none."""
        shard, row = self._locate(i)
        index = self._index(shard)
        offset, size = int(index.offsets_Nx3[row, column]), int(index.sizes_Nx3[row, column])
        if size <= 0:
            return None if size < 0 else b""
        data = self._read(i, shard, offset, size)
        if len(data) != size:
            raise self.bad_example(i, f"the tar ends before byte {offset + size}")
        return data

    def _copy(self, shard: int) -> Path | None:
        return self._copies.path(self.paths[shard]) if self._copies is not None else None

    def _read(self, i: int, shard: int, offset: int, size: int) -> bytes:
        if self._remote[shard]:
            if (ahead := self._ahead.get(i)) is not None:
                start, data = ahead
                if start <= offset and offset + size <= start + len(data):
                    return data[offset - start : offset - start + size]
            if shard not in self._handles and self._copy(shard) is None:
                return files.read_ranges(self.paths[shard], [offset], [size])[0]
        handle = self._handles.get(shard)
        try:
            if handle is not None:
                return os.pread(handle, size, offset)
            handle = os.open(self._copy(shard) or self.paths[shard], os.O_RDONLY)
            with self._lock:
                keep = shard not in self._handles and len(self._handles) < _MAX_OPEN_FILES
                if keep:
                    self._handles[shard] = handle
            try:
                return os.pread(handle, size, offset)
            finally:
                if not keep:
                    os.close(handle)
        except OSError as error:
            raise DataError(f"{self.paths[shard]}: {error.strerror or error}; {HINT}") from None


def write_shard(path: Path, examples: Iterable[tuple[str, Mapping[str, bytes]]]) -> int:
    """Writes a tar and its index. The same examples give the same bytes.

    The tar appears under its name when it is complete.

    Arguments:
      examples: keys and members, such as {"png": ..., "txt": ..., "json": ...}.

    Returns:
      The number of examples.

    Raises:
      DataError: the disk is full or read-only.
      ValueError: a member's name has more than the 100 bytes of a tar header.
    """
    index: dict[str, dict[int, tuple[int, int]]] = {}
    try:
        with atomic_write(path) as file:
            offset = 0
            for key, members in examples:
                row = index[key] = {}
                for kind, data in members.items():
                    padding = bytes(-len(data) % BLOCK)
                    file.write(b"".join((file_header(f"{key}.{kind}", len(data)), data, padding)))
                    if (column := tar_index.column_of(kind)) is not None:
                        row[column] = (offset + BLOCK, len(data))
                    offset += BLOCK + len(data) + len(padding)
            file.write(bytes(2 * BLOCK))
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder "
            "and run again (complete shards are kept)"
        ) from None
    tar_index.save(path, TarIndex.of_members(index))
    return len(index)


_EMPTY = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # owner, group and time are zero
_NAME_BYTES, _SIZE, _CHECKSUM = 100, slice(124, 135), slice(148, 156)
# The sum of all bytes but the name and the size; a checksum counts its own field as spaces.
_OTHERS = sum(_EMPTY) - sum(_EMPTY[_SIZE]) - sum(_EMPTY[_CHECKSUM]) + 8 * ord(" ")


def file_header(name: str, size: int) -> bytes:
    """The header of a file, as `tarfile` makes it in ten times the time."""
    encoded, digits = name.encode(), b"%011o" % size
    if len(encoded) > _NAME_BYTES or len(digits) > 11:
        member = tarfile.TarInfo(name)
        member.size = size
        return member.tobuf(tarfile.USTAR_FORMAT, encoding="utf-8")
    header = bytearray(_EMPTY)
    header[: len(encoded)], header[_SIZE] = encoded, digits
    header[_CHECKSUM] = b"%06o\0 " % (_OTHERS + sum(encoded) + sum(digits))
    return bytes(header)
