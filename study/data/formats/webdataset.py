"""webdataset tars: read in any order by byte range, and written reproducibly."""

from __future__ import annotations

import bisect
import itertools
import json
import os
import tarfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.data.formats import tar_index
from study.data.formats.dataset import HINT, DataError
from study.data.formats.reader import Reader
from study.data.formats.tar_index import BLOCK, IMAGE, IMAGE_NAMES, JSON, TEXT, TarIndex
from study.records.record import atomic_write

_MAX_OPEN_FILES = 256


class WebdatasetReader(Reader):
    """Examples of webdataset tars. Thread-safe.

    The index of a tar (48 bytes per example, and its key) is loaded at the first access to the tar
    if `counts` is known, else at once.

    Arguments:
      text_key: the key of the caption in an example's JSON; None takes the `txt` member, or
        "caption", img2dataset's key, if there is none.
      cache: a folder for indexes of tars whose own folder is read-only.
      counts: number of examples in each tar.
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
            for shard, path in enumerate(self.paths):
                self._indexes[shard] = tar_index.load_or_scan(path, cache)
            counts = [len(index) for index in self._indexes.values()]
        self._counts = tuple(counts)
        self._ends = list(itertools.accumulate(self._counts))
        self._handles: dict[int, int] = {}
        self._lock = threading.Lock()
        self._index_locks = [threading.Lock() for _ in self.paths]

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
            metadata = json.loads(data) if data else {}
        except ValueError:
            raise self.bad_example(i, "its metadata is not JSON") from None
        return metadata if isinstance(metadata, dict) else {}

    def __del__(self) -> None:
        for handle in self.__dict__.get("_handles", {}).values():
            os.close(handle)

    def _locate(self, i: int) -> tuple[int, int]:
        """Shard and row of an example."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        shard = bisect.bisect_right(self._ends, i)
        return shard, i - (self._ends[shard - 1] if shard else 0)

    def _index(self, shard: int) -> TarIndex:
        if (index := self._indexes.get(shard)) is not None:
            return index
        with self._index_locks[shard]:  # one thread scans a tar, others may scan other tars
            if shard not in self._indexes:
                index = tar_index.load_or_scan(self.paths[shard], self._cache)
                if len(index) != self._counts[shard]:
                    raise DataError(
                        f"{self.paths[shard]} holds {len(index)} examples, dataset.json records "
                        f"{self._counts[shard]}; if the tar is right, run `study data index` again"
                    )
                self._indexes[shard] = index
            return self._indexes[shard]

    def _member(self, i: int, column: int) -> bytes | None:
        """The bytes of a member; None if the example has none."""
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
