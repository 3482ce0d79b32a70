"""The rows of a record: one file that grows, or in a bucket, which cannot append, small parts.

    metrics.jsonl                    in a folder: each row appended and handed to the system
    metrics/<attempt>-<part>.jsonl   in a bucket: each part is written anew as it grows

In a bucket a row is there at once if the last write is `PAUSE` seconds ago, else within `PAUSE`
(services slow down or refuse faster writes to one object). `flush` waits for it. Whoever saves a
checkpoint flushes first, so a kill loses only rows that the next attempt makes again. A part that
has reached `PART` bytes is left alone and the next begun, so that a row costs no more than that.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from study.records.storage import is_bucket, listdir, read, write

METRICS, PARTS = "metrics.jsonl", "metrics"
PAUSE = 1.0  # seconds between two writes of one object
PART = 65_536  # bytes


def read_rows(folder: Path) -> bytes:
    """All lines of a record: of its file, then of its parts in order. b"" where there are none."""
    try:
        text = read(folder / METRICS)
    except (FileNotFoundError, NotADirectoryError):
        text = b""
    for part in listdir(folder / PARTS):
        if text and not text.endswith(b"\n"):
            text += b"\n"  # so that a torn line spoils no other
        text += read(part)
    return text


def parse(text: bytes) -> list[dict[str, Any]]:
    """The rows among these lines, in the order in which attempts made them.

    A record may have been moved between a folder and a bucket, so an earlier attempt may stand in
    the later file. Lines that are torn, or no row, are left out.
    """
    rows = []
    for line in text.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:  # torn, or bytes that are no text
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return sorted(rows, key=lambda row: row["attempt"] if type(row.get("attempt")) is int else 0)


class FileLog:
    """Appends to `metrics.jsonl`."""

    def __init__(self, folder: Path):
        path = folder / METRICS
        text = path.read_bytes() if path.exists() else b""
        self._file = path.open("a", encoding="utf-8")
        if text and not text.endswith(b"\n"):
            self._file.write("\n")  # so that a torn line spoils no other

    def write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def flush(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class BucketLog:
    """Writes the parts of one attempt.

    A write that fails in the background is tried again with the next row, whose caller gets the
    error if it fails once more.
    """

    def __init__(self, folder: Path, attempt: int):
        self._folder, self._attempt = folder / PARTS, attempt
        self._part, self._lines, self._size = 0, list[bytes](), 0
        self._lock = threading.Lock()
        self._unwritten = False
        self._written = -PAUSE
        self._timer: threading.Timer | None = None

    def write(self, line: str) -> None:
        raw = line.encode() + b"\n"
        with self._lock:
            if self._size + len(raw) > PART and self._lines:
                self._put()
                self._part, self._lines, self._size = self._part + 1, [], 0
            self._lines.append(raw)
            self._size += len(raw)
            self._unwritten = True
            wait = self._written + PAUSE - time.monotonic()
            if wait <= 0:
                self._put()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._later)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        with self._lock:
            self._put()

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._put()

    def _later(self) -> None:
        with self._lock:
            self._timer = None
            try:
                self._put()
            except Exception:  # the caller of the next row, or of flush, meets it again
                return

    def _put(self) -> None:
        if self._unwritten:
            name = f"{self._attempt:05d}-{self._part:05d}.jsonl"
            write(self._folder / name, b"".join(self._lines))
            self._unwritten, self._written = False, time.monotonic()


def open_log(folder: Path, attempt: int) -> FileLog | BucketLog:
    """A writer of rows for `attempt` at the cell of `folder`."""
    return BucketLog(folder, attempt) if is_bucket(folder) else FileLog(folder)
