"""An object of a bucket as a file that is read forwards, as a tar's headers are."""

from __future__ import annotations

import io
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from study.data import ranges
from study.data.ranges import Run, submit

_FIRST = 64 << 10  # bytes of the first request, and of the first after a jump; then doubled
# What arrives in the time of a jump, whose request must be answered before the next can be made:
# 50 ms at 80 MB/s.
_JUMP = 4 << 20


class RangeFile(io.RawIOBase):
    """Reads ahead while what is read is near the last piece, and jumps over longer distances.

    A jump over less than `_JUMP` bytes would take longer than reading on. So a tar of photos is
    read whole, by long requests, and of a tar of videos only the headers are.
    """

    def __init__(self, path: Path, size: int):
        super().__init__()
        self._path, self._size = path, size
        self._position = 0
        self._start, self._data = 0, b""  # the last piece
        self._step = _FIRST // 2
        self._next: Future[bytes] | None = None  # the piece after the last one

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the whole buffer, as of a file: tarfile takes a short read for a torn header."""
        filled = 0
        while filled < len(buffer) and self._position < self._size:
            while not self._start <= self._position < self._start + len(self._data):
                if not self._advance():
                    return filled
            offset = self._position - self._start
            data = self._data[offset : offset + len(buffer) - filled]
            buffer[filled : filled + len(data)] = data
            self._position += len(data)
            filled += len(data)
        return filled

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        super().close()

    def _advance(self) -> bool:
        """Loads a piece at the position or before it; returns False if the object has ended."""
        stop = self._start + len(self._data)
        if stop <= self._position <= stop + _JUMP:
            future = self._next or self._submit(stop)
        else:
            if self._next is not None:
                self._next.cancel()
            stop, self._step = self._position, _FIRST // 2
            future = self._submit(stop)
        self._next = None
        self._start, self._data = stop, future.result()
        following = stop + len(self._data)
        if self._step == ranges.MAX_RUN and following < self._size:
            self._next = self._submit(following)
        return bool(self._data)

    def _submit(self, start: int) -> Future[bytes]:
        self._step = min(2 * self._step, ranges.MAX_RUN)
        return submit(self._path, Run(start, min(start + self._step, self._size), []))
