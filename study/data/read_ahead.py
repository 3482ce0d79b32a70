"""Examples of a bucket's shards, fetched before they are read and kept until they are."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import NamedTuple

import numpy as np

from study.data.ranges import Run, coalesce, submit

BUDGET = 2 << 30  # bytes in flight and in memory
_KEPT = 2  # requests before that of an example just read whose unread examples are kept


class Spans(NamedTuple):
    """Bytes of some examples in one shard.

    Attributes:
      rank_N: the order in which they will be read.
    """

    path: Path
    example_N: np.ndarray
    rank_N: np.ndarray
    start_N: np.ndarray
    size_N: np.ndarray


@dataclasses.dataclass(eq=False)
class _Fetch:
    """A run of bytes, and the (start, size) of the examples in it that are not read yet."""

    path: Path
    run: Run
    spans: dict[int, tuple[int, int]]
    window: int = 0  # number of the request
    requested: bool = False
    future: Future[bytes] | None = None  # while it is in flight, or after it failed
    data: dict[int, bytes] | None = None  # of each example, once it has arrived
    held: int = 0  # bytes in flight or in memory


class ReadAhead:
    """Fetches spans in long runs in the background. Thread-safe.

    Runs are requested in the order of their first use while all that is in flight and unread takes
    at most `budget` bytes; the rest waits for room. What was not requested yet when it is needed
    is left to the caller. An example that is never read, such as one that was replaced, is
    forgotten once reading is `_KEPT` requests further.

    Attributes:
      held: bytes in flight or in memory.
    """

    def __init__(self, budget: int = BUDGET):
        self.held = 0
        self._budget = budget
        self._lock = threading.RLock()  # a future that is done calls back at once
        self._of_example: dict[int, _Fetch] = {}
        self._windows: deque[list[_Fetch]] = deque()
        self._first = 0  # number of the first of them
        self._waiting: deque[_Fetch] = deque()

    def request(self, spans: Iterable[Spans]) -> None:
        """Begins to fetch examples that were not requested yet."""
        ranked = []
        for part in spans:
            for run in coalesce(part.start_N, part.size_N):
                rows = np.array(run.rows)
                bounds = zip(part.start_N[rows].tolist(), part.size_N[rows].tolist(), strict=True)
                members = dict(zip(part.example_N[rows].tolist(), bounds, strict=True))
                fetch = _Fetch(part.path, run._replace(rows=[]), members)
                ranked.append((int(part.rank_N[rows].min()), fetch))
        window = [fetch for _, fetch in sorted(ranked, key=lambda pair: pair[0])]
        with self._lock:
            number = self._first + len(self._windows)
            self._windows.append(window)
            for fetch in window:
                fetch.window = number
                self._of_example.update(dict.fromkeys(fetch.spans, fetch))
            self._waiting.extend(window)
            self._send()

    def missing(self, example_N: np.ndarray) -> np.ndarray:
        """Those of the examples that were not requested."""
        with self._lock:
            return example_N[[e not in self._of_example for e in example_N.tolist()]]

    def get(self, example: int) -> tuple[int, bytes] | None:
        """The position in its shard and the bytes of an example; None if it was not requested.

        Raises:
          DataError: the request failed.
        """
        if example not in self._of_example:
            return None
        with self._lock:
            fetch = self._of_example.get(example)
            if fetch is None:
                return None
            if not fetch.requested:
                self._take(example)
                return None
            self._forget_before(fetch.window - _KEPT)
            future = fetch.future
        try:
            if future is not None:
                future.result()
        except CancelledError:
            return None
        with self._lock:
            self._settle(fetch)
            data = (fetch.data or {}).get(example)
            return None if data is None else (fetch.spans[example][0], data)

    def drop(self, example: int) -> None:
        """Forgets an example that has been read."""
        if example in self._of_example:  # without the lock, which every example would take
            with self._lock:
                self._take(example)

    def close(self) -> None:
        """Forgets everything, and cancels what is in flight."""
        with self._lock:
            self._waiting.clear()
            while self._windows:
                self._forget()

    def _take(self, example: int) -> None:
        fetch = self._of_example.pop(example, None)
        if fetch is None:
            return
        del fetch.spans[example]
        size = len(fetch.data.pop(example, b"")) if fetch.data else 0
        fetch.held -= size
        self.held -= size
        self._forget_before(fetch.window - _KEPT)
        while self._windows and not any(other.spans for other in self._windows[0]):
            self._forget()
        self._send()

    def _forget_before(self, number: int) -> None:
        while self._first < number:
            self._forget()

    def _send(self) -> None:
        """Requests the next runs while there is room."""
        while self._waiting:
            fetch = self._waiting[0]
            size = fetch.run.stop - fetch.run.start
            if fetch.spans and self.held and self.held + size > self._budget:
                return
            self._waiting.popleft()
            if fetch.spans:
                fetch.requested, fetch.held = True, size
                self.held += size
                fetch.future = submit(fetch.path, fetch.run)
                fetch.future.add_done_callback(functools.partial(self._arrived, fetch))

    def _arrived(self, fetch: _Fetch, future: Future[bytes]) -> None:
        with self._lock:
            self._settle(fetch)
            self._send()

    def _settle(self, fetch: _Fetch) -> None:
        """Cuts a run that has arrived into its examples, so that each can be forgotten."""
        future = fetch.future
        if future is None or not future.done():
            return
        self.held -= fetch.held
        fetch.held = 0
        if future.cancelled() or future.exception() is not None:
            return  # `get` raises it
        data, origin = future.result(), fetch.run.start
        fetch.data = {
            example: data[start - origin : start - origin + size]
            for example, (start, size) in fetch.spans.items()
        }
        fetch.future = None
        fetch.held = sum(map(len, fetch.data.values()))
        self.held += fetch.held

    def _forget(self) -> None:
        """Forgets the first window."""
        self._first += 1
        for fetch in self._windows.popleft():
            for example in list(fetch.spans):
                if self._of_example.get(example) is fetch:
                    del self._of_example[example]
            fetch.spans.clear()
            if fetch.future is not None:
                fetch.future.cancel()
            self.held -= fetch.held
            fetch.held, fetch.data = 0, {}
