"""Rows of one array in `.npy` shards: memory-mapped from a disk, or read by ranges from a bucket.

What a process holds does not grow with the number of rows: a name and a count for each shard, and
what was prefetched.
"""

from __future__ import annotations

import dataclasses
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
_RUNS_AHEAD = 1024  # requests that wait or whose bytes wait, of a window


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
        self._windows: list[_Window] = []  # prefetched, in that order
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
        """Begins to read rows that are taken soon, each once; does nothing on a disk.

        They are kept until they are taken, or rows of the next two calls are. Rows that were not
        prefetched are read when they are taken.
        """
        if is_bucket(self.folder) and len(index_N):
            window = self._plan(np.unique(index_N))
            self._begin(window, 0)
            with self._lock:
                self._windows.append(window)

    def count_requests(self, index_N: np.ndarray) -> tuple[int, int]:
        """Requests and bytes that the rows at `index_N` would take from a bucket, headers apart."""
        runs = self._plan(np.unique(index_N)).runs
        return len(runs), sum(run.stop - run.start for run in runs) * self._row_bytes

    # --- runs of rows -----------------------------------------------------------------------------

    @property
    def _row_bytes(self) -> int:
        return self.width * self._stored.itemsize

    def _take_runs(self, index_N: np.ndarray, order_N: np.ndarray, out_NxW: np.ndarray) -> None:
        """Copies rows from the windows that hold them; the others are read now.

        Arguments:
          order_N: sorts `index_N`.
        """
        with self._lock:
            windows = list(self._windows)
        last = 0
        for k, window in enumerate(windows):
            held_N = window.holds(index_N[order_N])
            if held_N.any():
                self._copy(window, index_N, order_N[held_N], out_NxW)
                order_N, last = order_N[~held_N], k
        if len(order_N):
            window = self._plan(np.unique(index_N[order_N]))
            self._copy(window, index_N, order_N, out_NxW)
        with self._lock:
            # The stream reads windows one after another, but for the rows of a chunk.
            done = [w for k, w in enumerate(windows) if w.left <= 0 or k < last - 1]
            self._windows = [w for w in self._windows if w not in done]

    def _plan(self, row_U: np.ndarray) -> _Window:
        """Groups rows, sorted and without duplicates, into runs of rows of one file."""
        longest = max(1, ranges.MAX_RUN // self._row_bytes)
        runs: list[_Run] = []
        run_U = np.empty(len(row_U), np.int64)
        for shard, first, last in self._by_shard(row_U):
            local_M = row_U[first:last] - self._starts_P[shard]
            begins_M = np.diff(local_M, prepend=-1) > 1 + self._gap // self._row_bytes
            begins_M[0] = True
            # A run that is too long is cut at multiples of `longest` from its first row.
            origin_M = np.maximum.accumulate(np.where(begins_M, local_M, 0))
            begins_M |= np.diff((local_M - origin_M) // longest, prepend=0) > 0
            begin_R = np.flatnonzero(begins_M)
            run_U[first:last] = len(runs) - 1 + np.cumsum(begins_M)
            start_R = local_M[begin_R].tolist()
            stop_R = (local_M[np.append(begin_R[1:], len(local_M)) - 1] + 1).tolist()
            runs += [_Run(shard, *ends) for ends in zip(start_R, stop_R, strict=True)]
        return _Window(row_U, run_U, runs)

    def _begin(self, window: _Window, k: int) -> None:
        """Begins to read run `k` of a window and, from a bucket, some after it."""
        end = k + 1 if not is_bucket(self.folder) else min(k + _RUNS_AHEAD, len(window.runs))
        while len(window.reads) < end:
            window.reads.append(self._read(window.runs[len(window.reads)]))

    def _read(self, run: _Run) -> _Read:
        path = self.folder / self._names[run.shard]
        skip = HEADER_BYTES + run.start * self._row_bytes
        end = HEADER_BYTES + run.stop * self._row_bytes
        if self._checked_P[run.shard]:
            return _Read(0, _read_range(path, skip, end), None)
        if skip <= max(self._gap, HEADER_BYTES):
            data = _read_range(path, 0, end)
            return _Read(skip, data, data)
        return _Read(0, _read_range(path, skip, end), _read_range(path, 0, HEADER_BYTES))

    def _copy(
        self, window: _Window, index_N: np.ndarray, row_M: np.ndarray, out_NxW: np.ndarray
    ) -> None:
        """Copies rows of a window to `out_NxW[row_M]`; `index_N[row_M]` is sorted."""
        run_M = window.run_of(index_N[row_M])
        for first, last in _groups(run_M):
            k = int(run_M[first])
            with window.lock:
                self._begin(window, k)
            run, to_m = window.runs[k], row_M[first:last]
            rows_KxW = self._rows_of(run, window.reads[k])
            out_NxW[to_m] = rows_KxW[index_N[to_m] - (self._starts_P[run.shard] + run.start)]
        window.left -= len(row_M)

    def _rows_of(self, run: _Run, read: _Read) -> np.ndarray:
        """The rows of a run.

        Raises:
          DataError: a header of another array, or a file that ends before.
        """
        if read.head is not None and not self._checked_P[run.shard]:
            self._check_header(run.shard, read.head.result())
        data = read.data.result()
        rows = (len(data) - read.skip) // self._row_bytes
        if rows < run.stop - run.start:
            raise DataError(
                f"{self.folder / self._names[run.shard]} is truncated: it ends before row "
                f"{run.start + max(0, rows) + 1:,}; {self._layout.redo}"
            )
        values = np.frombuffer(data, self._stored, rows * self.width, read.skip)
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
    """Rows [start, stop) of a shard, which one request reads."""

    shard: int
    start: int
    stop: int


class _Read(NamedTuple):
    """The request of a run.

    Attributes:
      skip: bytes before the rows.
      head: the request that reads the header, if that is to be checked.
    """

    skip: int
    data: Future[bytes]
    head: Future[bytes] | None


@dataclasses.dataclass(eq=False)
class _Window:
    """Rows that are read together.

    Attributes:
      row_U: sorted.
      run_U: for each row the run that holds it.
      reads: of the first runs; the others have not begun.
      left: rows that have not been taken.
    """

    row_U: np.ndarray
    run_U: np.ndarray
    runs: list[_Run]
    reads: list[_Read] = dataclasses.field(default_factory=list)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    left: int = 0

    def __post_init__(self) -> None:
        self.left = len(self.row_U)

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
