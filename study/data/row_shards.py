"""Rows of one array in `.npy` shards: memory-mapped from a disk, or read by ranges from a bucket.

What a process holds does not grow with the number of rows: a name and a count for each shard, and
what was prefetched.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from study.data import ranges
from study.data.errors import DataError
from study.data.row_files import HEADER_BYTES, Layout, Shard, map_rows, parse_header
from study.records.storage import is_bucket

_MAX_MAPS = 4096  # Linux lets a process map 65,530 regions; more files are read by range
_HEADERS_AT_ONCE = 32
_ROWS_AT_ONCE = 1 << 16


class RowShards:
    """The rows of some `.npy` files, N x W, in the order of the files. Thread-safe.

    On a disk all files are mapped at once, unless they are too many. Otherwise a file of known
    length is not touched before its rows are read. Its header is checked then, in the same request
    if the rows are near the beginning.

    Arguments:
      folder: of the files, on a disk or in a bucket.
      shards: the files in order.

    Attributes:
      dtype: of the rows that are read: float32 if files of floats are not all of `layout.dtype`.

    Raises:
      DataError: a file that is missing, torn, or of another type or width.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], layout: Layout):
        self.folder, self.width, self._layout = folder, layout.width, layout
        self._names = [shard.name for shard in shards]
        self._maps: list[np.ndarray] | None = None
        self._gap = ranges.MAX_GAP if is_bucket(folder) else 0  # bytes between rows of a run
        types = {layout.dtype}
        if not is_bucket(folder) and len(shards) <= _MAX_MAPS:
            self._maps = [map_rows(folder / name, layout) for name in self._names]
            counts = [len(part) for part in self._maps]
            types = {part.dtype for part in self._maps}
        else:
            counts = [shard.rows for shard in shards if shard.rows is not None]
            if len(counts) < len(shards):
                counts, types = self._read_headers()
        mixed = types - {layout.dtype}
        self.dtype = np.dtype(np.float32) if mixed and layout.dtype.kind == "f" else layout.dtype
        self._stored = types.pop() if len(types) == 1 else layout.dtype
        self._checked_P = np.zeros(len(shards), bool)
        self._ends_P = np.cumsum(counts, dtype=np.int64)
        self._starts_P = self._ends_P - np.asarray(counts, np.int64)
        # A window is dropped when two later ones have begun.
        self._windows: collections.deque[_Window] = collections.deque(maxlen=2)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends_P[-1]) if len(self._ends_P) else 0

    @property
    def nbytes(self) -> int:
        """Of all rows in memory."""
        return len(self) * self.width * self.dtype.itemsize

    @property
    def modified(self) -> tuple[int, ...]:
        """When each file that is mapped was written, in ns."""
        names = self._names if self._maps else []
        return tuple((self.folder / name).stat().st_mtime_ns for name in names)

    def starts(self) -> dict[str, int]:
        """The index of the first row of each file."""
        return dict(zip(self._names, self._starts_P.tolist(), strict=True))

    def path(self, i: int) -> Path:
        """The file that holds row `i`."""
        return self.folder / self._names[int(np.searchsorted(self._ends_P, i, side="right"))]

    def rows(self) -> np.ndarray:
        """All rows in memory, N x W."""
        out_NxW = np.empty((len(self), self.width), self.dtype)
        if self._maps:
            return np.concatenate(self._maps, out=out_NxW)
        for start in range(0, len(self), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, len(self))
            out_NxW[start:stop] = self.take(np.arange(start, stop))
        return out_NxW

    def take(self, index_N: np.ndarray) -> np.ndarray:
        """The rows at `index_N`, N x W."""
        index_N = np.asarray(index_N)
        out_NxW = np.empty((len(index_N), self.width), self.dtype)
        order_N = np.argsort(index_N, kind="stable")
        if self._maps is None:
            self._take_runs(index_N, order_N, out_NxW)
            return out_NxW
        sorted_N = index_N[order_N]
        for shard, first, last in self._by_shard(sorted_N):
            local_M = sorted_N[first:last] - self._starts_P[shard]
            out_NxW[order_N[first:last]] = self._maps[shard][local_M]
        return out_NxW

    def prefetch(self, index_N: np.ndarray) -> None:
        """Begins to read rows that are taken soon; does nothing on a disk.

        The rows of the last two calls are kept in memory. Others are read when they are taken.
        """
        if is_bucket(self.folder) and len(index_N):
            window = self._read(np.unique(index_N))
            with self._lock:
                self._windows.append(window)

    # --- runs of rows -----------------------------------------------------------------------------

    def _take_runs(self, index_N: np.ndarray, order_N: np.ndarray, out_NxW: np.ndarray) -> None:
        """Copies rows from the windows that hold them, and the others from one that is read now.

        Arguments:
          order_N: sorts `index_N`.
        """
        with self._lock:
            windows = list(self._windows)
        for window in windows:
            held_N = window.holds(index_N[order_N])
            self._copy(window, index_N, order_N[held_N], out_NxW)
            order_N = order_N[~held_N]
        if len(order_N):
            window = self._read(np.unique(index_N[order_N]))
            self._copy(window, index_N, order_N, out_NxW)

    def _read(self, row_U: np.ndarray) -> _Window:
        """Begins to read rows, sorted and without duplicates, in runs of rows of one file."""
        row_bytes = self.width * self._stored.itemsize
        longest = max(1, ranges.MAX_RUN // row_bytes)
        runs: list[_Run] = []
        run_U = np.empty(len(row_U), np.int64)
        for shard, first, last in self._by_shard(row_U):
            local_M = row_U[first:last] - self._starts_P[shard]
            begins_M = np.diff(local_M, prepend=-1) > 1 + self._gap // row_bytes
            begins_M[0] = True
            # A run that is too long is cut at multiples of `longest` from its first row.
            origin_M = np.maximum.accumulate(np.where(begins_M, local_M, 0))
            begins_M |= np.diff((local_M - origin_M) // longest, prepend=0) > 0
            begin_R = np.flatnonzero(begins_M)
            end_R = np.append(begin_R[1:], len(local_M))
            run_U[first:last] = len(runs) - 1 + np.cumsum(begins_M)
            for begin, end in zip(begin_R.tolist(), end_R.tolist(), strict=True):
                start, stop = int(local_M[begin]), int(local_M[end - 1]) + 1
                runs.append(self._read_run(shard, start, stop, first=begin == 0))
        return _Window(row_U, run_U, runs)

    def _read_run(self, shard: int, start: int, stop: int, *, first: bool) -> _Run:
        path = self.folder / self._names[shard]
        row_bytes = self.width * self._stored.itemsize
        skip, end = HEADER_BYTES + start * row_bytes, HEADER_BYTES + stop * row_bytes
        if not first or self._checked_P[shard]:
            return _Run(shard, start, stop, 0, _read_range(path, skip, end), None)
        if skip <= max(self._gap, HEADER_BYTES):
            data = _read_range(path, 0, end)
            return _Run(shard, start, stop, skip, data, data)
        head = _read_range(path, 0, HEADER_BYTES)
        return _Run(shard, start, stop, 0, _read_range(path, skip, end), head)

    def _copy(
        self, window: _Window, index_N: np.ndarray, row_M: np.ndarray, out_NxW: np.ndarray
    ) -> None:
        """Copies rows of a window to `out_NxW[row_M]`; `index_N[row_M]` is sorted."""
        run_M = window.run_of(index_N[row_M])
        for first, last in _groups(run_M):
            run = window.runs[run_M[first]]
            rows_KxW = self._rows_of(run)
            to_m = row_M[first:last]
            out_NxW[to_m] = rows_KxW[index_N[to_m] - (self._starts_P[run.shard] + run.start)]

    def _rows_of(self, run: _Run) -> np.ndarray:
        """The rows of a run.

        Raises:
          DataError: a header of another array, or a file that ends before.
        """
        if run.head is not None and not self._checked_P[run.shard]:
            self._check_header(run.shard, run.head.result())
        data, row_bytes = run.data.result(), self.width * self._stored.itemsize
        rows = (len(data) - run.skip) // row_bytes
        if rows < run.stop - run.start:
            raise DataError(
                f"{self.folder / self._names[run.shard]} is truncated: it ends before row "
                f"{run.start + max(0, rows) + 1:,}; {self._layout.redo}"
            )
        values = np.frombuffer(data, self._stored, rows * self.width, run.skip)
        return values.reshape(-1, self.width)

    def _by_shard(self, sorted_N: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """(shard, first, last) for each shard that holds rows [first:last] of `sorted_N`."""
        shard_N = np.searchsorted(self._ends_P, sorted_N, side="right")
        for first, last in _groups(shard_N):
            yield int(shard_N[first]), first, last

    # --- headers ----------------------------------------------------------------------------------

    def _read_headers(self) -> tuple[list[int], set[np.dtype[Any]]]:
        """The number of rows of each file, and their types."""

        def read_header(name: str) -> tuple[int, np.dtype[Any]]:
            path = self.folder / name
            (data,) = ranges.read_ranges(path, [0], [HEADER_BYTES])
            return parse_header(path, data, self._layout)

        with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            headers = list(pool.map(read_header, self._names))
        types = {dtype for _, dtype in headers}
        if len(types) > 1:
            raise DataError(
                f"{self.folder} holds {' and '.join(sorted(map(str, types)))}; all files must be "
                f"of one type; {self._layout.redo}"
            )
        return [rows for rows, _ in headers], types

    def _check_header(self, shard: int, data: bytes) -> None:
        path, layout = self.folder / self._names[shard], self._layout
        rows, dtype = parse_header(path, data, layout)
        recorded = int(self._ends_P[shard] - self._starts_P[shard])
        if rows != recorded or dtype != self._stored:
            raise DataError(
                f"{path} holds {rows:,} rows of {dtype}, but {layout.recorded} records "
                f"{recorded:,} of {self._stored}; {layout.redo}"
            )
        self._checked_P[shard] = True


class _Run(NamedTuple):
    """Rows [start, stop) of a shard, which one request reads.

    Attributes:
      skip: bytes before the rows.
      head: the request that reads the header, if that is to be checked.
    """

    shard: int
    start: int
    stop: int
    skip: int
    data: Future[bytes]
    head: Future[bytes] | None


class _Window(NamedTuple):
    """Rows, sorted, and for each the number of the run that holds it."""

    row_U: np.ndarray
    run_U: np.ndarray
    runs: list[_Run]

    def holds(self, row_M: np.ndarray) -> np.ndarray:
        """Whether each row is among them."""
        near_M = self.row_U.take(np.searchsorted(self.row_U, row_M), mode="clip")
        held_M: np.ndarray = near_M == row_M
        return held_M

    def run_of(self, row_M: np.ndarray) -> np.ndarray:
        return self.run_U[np.searchsorted(self.row_U, row_M)]


def _groups(value_N: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of equal values."""
    first_G = np.flatnonzero(np.diff(value_N, prepend=-1))
    yield from zip(first_G.tolist(), [*first_G[1:].tolist(), len(value_N)], strict=False)


def _read_range(path: Path, start: int, stop: int) -> Future[bytes]:
    """Bytes of a file: begins to read them from a bucket, or reads them from a disk."""
    if is_bucket(path):
        return ranges.submit(path, ranges.Run(start, stop, []))
    future: Future[bytes] = Future()
    try:
        future.set_result(ranges.read_ranges(path, [start], [stop - start])[0])
    except DataError as error:
        future.set_exception(error)
    return future
