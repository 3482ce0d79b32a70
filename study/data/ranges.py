"""Reads byte ranges of files, from a folder or a bucket (`study.data.files`), by one function.

A request to a bucket takes tens of milliseconds until its first byte, however short the range. So
neighbouring ranges are read in one request, gaps included, and many requests run at once, on the
event loop of gcsfs.

A request fails for a moment (429, 5xx, a connection that breaks), or delivers less than it
announced, or nothing at all. It is then repeated, later each time; what remains is one line.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from study.data.errors import HINT, DataError
from study.records.storage import format_error, is_bucket

# A gap is read and thrown away where that costs less than another request. Measured over loopback,
# a request takes 0.17 ms of CPU and a byte 0.8 ns, which is 0.2 MiB for a request.
MAX_GAP = 256 << 10
MAX_RUN = 8 << 20  # bytes of a request; more take no longer to begin and longer to repeat
MAX_REQUESTS = 32  # at once in this process, so at most MAX_REQUESTS * MAX_RUN bytes in flight
_PIECES = 8  # of an object that is copied, in flight
_TRIES = 7
_FIRST_WAIT, _MAX_WAIT = 0.5, 30.0  # seconds before a second try; doubled for each further one
_STALL = 10.0  # seconds without a byte after which a request is given up
_TOTAL = 120.0  # seconds for a whole request, against a server that sends a byte now and then

Integers = Sequence[int] | np.ndarray

# Since the process began: "requests", "bytes" that they delivered, and "retries".
counts: Counter[str] = Counter()
_slots: dict[Any, asyncio.Semaphore] = {}  # of each event loop


class Run(NamedTuple):
    """Ranges of a file that one request reads: bytes [start, stop), which hold `rows`."""

    start: int
    stop: int
    rows: list[int]


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      DataError: a file that is missing, or that cannot be read.
    """
    if not is_bucket(path):
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}; {HINT}") from None
    return submit(path, Run(0, -1, [])).result()


def read_ranges(path: Path, start_N: Integers, size_N: Integers) -> list[bytes]:
    """Reads byte ranges of a file, in any order; they may overlap.

    Of a bucket, ranges with at most `MAX_GAP` bytes between them are read by one request of up to
    `MAX_RUN` bytes, `MAX_REQUESTS` requests at once, each repeated after a failure that passes.

    Returns:
      The bytes of each range, fewer than asked for where the file ends before.

    Raises:
      DataError: a file that is missing, or that cannot be read.
    """
    if not is_bucket(path):
        return _pread(path, start_N, size_N)
    out_N = [b""] * len(start_N)
    runs = coalesce(start_N, size_N)
    futures = [submit(path, run) for run in runs]
    try:
        for run, future in zip(runs, futures, strict=True):
            data = future.result()
            for row in run.rows:
                start = int(start_N[row]) - run.start
                out_N[row] = data[start : start + int(size_N[row])]
    finally:
        for future in futures:
            future.cancel()
    return out_N


def download(path: Path, size: int, file: BinaryIO) -> None:
    """Copies an object of `size` bytes into a local file, in pieces.

    Raises:
      DataError: an object that is missing, that cannot be read, or that has become shorter.
    """
    starts = iter(range(0, size, MAX_RUN))
    pending: deque[tuple[int, Future[bytes]]] = deque()
    try:
        while True:
            for start in itertools.islice(starts, _PIECES - len(pending)):
                stop = min(start + MAX_RUN, size)
                pending.append((stop - start, submit(path, Run(start, stop, []))))
            if not pending:
                return
            length, future = pending[0]
            data = future.result()
            if len(data) != length:
                raise DataError(f"{path} became shorter while it was read; run again")
            file.write(data)
            pending.popleft()
    finally:
        for _, future in pending:
            future.cancel()


def coalesce(start_N: Integers, size_N: Integers) -> list[Run]:
    """Runs that cover all ranges which are not empty, each range within one run.

    A run is longer than `MAX_RUN` only if a single range is.
    """
    start_N, size_N = np.asarray(start_N, np.int64), np.asarray(size_N, np.int64)
    runs: list[Run] = []
    first = last = -1  # bytes of the open run
    rows: list[int] = []
    order_N = np.argsort(start_N, kind="stable")
    for row, start, size in zip(
        order_N.tolist(), start_N[order_N].tolist(), size_N[order_N].tolist(), strict=True
    ):
        if size <= 0:
            continue
        stop = start + size
        if rows and (start - last > MAX_GAP or max(stop, last) - first > MAX_RUN):
            runs.append(Run(first, last, rows))
            rows = []
        if not rows:
            first = last = start
        last = max(last, stop)
        rows.append(row)
    return [*runs, Run(first, last, rows)] if rows else runs


def submit(path: Path, run: Run) -> Future[bytes]:
    """Begins to read a run of a bucket's object, in the background; -1 as its stop is the end."""
    system: Any = path.fs  # type: ignore[attr-defined]
    return asyncio.run_coroutine_threadsafe(_read_run(path, run), system.loop)


# --- requests -----------------------------------------------------------------------------------


async def _read_run(path: Path, run: Run) -> bytes:
    if run.stop - run.start <= MAX_RUN:
        return await _request(path, run.start, run.stop)
    pieces = [
        _request(path, start, min(start + MAX_RUN, run.stop))
        for start in range(run.start, run.stop, MAX_RUN)
    ]
    return b"".join(await asyncio.gather(*pieces))


async def _request(path: Any, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of an object, as far as it has them; see `submit`."""
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_REQUESTS))
    async with slots:
        for attempt in range(1, _TRIES + 1):
            try:
                counts["requests"] += 1
                data = await _get(path, start, stop)
            except FileNotFoundError:
                raise DataError(f"{path}: no such object; {HINT}") from None
            except Exception as error:  # gcsfs raises types of several packages
                reason = _describe(error)
                if not _passes(error):
                    raise DataError(
                        f"{path} cannot be read ({reason}); check the bucket, and that this "
                        "machine may read it"
                    ) from None
                if attempt == _TRIES:
                    raise DataError(
                        f"{path}, bytes {start} to {stop}, cannot be read ({reason}; tried "
                        f"{_TRIES} times); check the network and the bucket, and run again"
                    ) from None
                counts["retries"] += 1
                await _wait(attempt)
            else:
                counts["bytes"] += len(data)
                return data
    raise AssertionError("unreachable")


async def _get(path: Any, start: int, stop: int) -> bytes:
    """One request. gcsfs' own would wait for a silent server for five minutes."""
    import aiohttp
    from gcsfs.retry import validate_response

    system, name = path.fs, path.path
    await system._set_session()
    headers = {"Range": f"bytes={start}-{stop - 1}"} if stop >= 0 else {}
    limits = aiohttp.ClientTimeout(total=_TOTAL, sock_connect=_STALL, sock_read=_STALL)
    async with system.session.get(
        system.url(name),
        params=system._get_params({}),
        headers=system._get_headers(headers),
        timeout=limits,
    ) as response:
        data: bytes = await response.read()
        if response.status == 416:  # the range begins after the end
            return b""
        validate_response(response.status, data, name)
        if stop < 0:
            return data
        if response.status == 206:
            extent = response.headers["Content-Range"].rpartition("/")[2]
            if len(data) != max(0, min(stop, int(extent)) - start):
                raise _TruncatedError(f"{len(data)} of {stop - start} bytes arrived")
            return data
        return data[start:stop]  # the server ignores ranges


class _TruncatedError(Exception):
    """A response that ended early."""


def _passes(error: Exception) -> bool:
    """Whether another try may succeed."""
    from gcsfs.retry import is_retriable

    return is_retriable(error) or isinstance(
        error, (_TruncatedError, TimeoutError, ConnectionError)
    )


def _describe(error: Exception) -> str:
    return f"nothing for {_STALL:g} s" if isinstance(error, TimeoutError) else format_error(error)


async def _wait(attempt: int) -> None:
    """Longer after each try, and of random length, so that hosts do not return together."""
    await asyncio.sleep(random.uniform(0.5, 1) * min(_FIRST_WAIT * 2 ** (attempt - 1), _MAX_WAIT))


# --- local files --------------------------------------------------------------------------------


def _pread(path: Path, start_N: Integers, size_N: Integers) -> list[bytes]:
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            return [
                os.pread(handle, int(size), int(start)) if size > 0 else b""
                for start, size in zip(start_N, size_N, strict=True)
            ]
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; {HINT}") from None
