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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from study.records.storage import is_bucket, listdir, read, write

METRICS, PARTS = "metrics.jsonl", "metrics"
COUNTS = ("step", "examples_seen", "pairs_seen", "attempt")  # in every line
PAUSE = 1.0  # seconds between two writes of one object
PART = 65_536  # bytes


class Log(NamedTuple):
    """The lines of a record, parsed.

    rows: the measurements that stand, as logged, in the order in which attempts made them.
    attempts: the number of the latest one.
    superseded: how many rows a later attempt made again.
    dropped: how many lines are torn, or are no row of a record.
    """

    rows: list[dict[str, Any]]
    attempts: int
    superseded: int
    dropped: int


@dataclass(frozen=True, kw_only=True)
class CellProgress:
    """How far a cell is, from the tail of its log. `time` is of its last line."""

    step: int = 0
    examples_seen: int = 0
    pairs_seen: int = 0
    attempts: int = 0
    examples_per_second: float | None = None
    time: float | None = None


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


def parse(text: bytes) -> Log:
    """The measurements among these lines, the attempts of a cell stitched into one run.

    After a `start` event of attempt a at step s, rows of earlier attempts beyond s are superseded:
    the new attempt took those steps again.
    """
    lines, dropped = _parse_lines(text)
    # A record that was moved between a folder and a bucket may hold an earlier attempt later.
    lines.sort(key=lambda line: line["attempt"])
    starts = [line for line in lines if line.get("event") == "start"]
    measured = [line for line in lines if "event" not in line]
    rows = [
        row
        for row in measured
        if all(s["attempt"] <= row["attempt"] or row["step"] <= s["step"] for s in starts)
    ]
    attempts = max((line["attempt"] for line in lines), default=0)
    return Log(rows, attempts, len(measured) - len(rows), dropped)


def read_progress(folder: Path, *, tail_bytes: int = 65_536) -> CellProgress:
    """How far the cell in `folder` is, from the tail of its log; zero if there is none.

    Args:
      tail_bytes: how much of the end of `metrics.jsonl` is read. The rate is over those of its
        rows that the latest attempt wrote, so without the compilation before its first row.
    """
    path = folder / METRICS
    try:
        if is_bucket(folder) or not path.is_file():
            parts = listdir(folder / PARTS)  # the last one is small
            tail = read(parts[-1] if parts else path)
        else:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - tail_bytes))
                tail = file.read()
            if size > tail_bytes:
                tail = tail.partition(b"\n")[2]  # the first line is cut
    except (FileNotFoundError, NotADirectoryError):
        return CellProgress()
    lines, _ = _parse_lines(tail)
    if not lines:
        return CellProgress()
    attempt = max(line["attempt"] for line in lines)
    latest = [line for line in lines if line["attempt"] == attempt]
    last = latest[-1]
    return CellProgress(
        step=last["step"],
        examples_seen=last["examples_seen"],
        pairs_seen=last["pairs_seen"],
        attempts=attempt,
        examples_per_second=_rate([line for line in latest if "event" not in line]),
        time=last.get("time"),
    )


def _rate(rows: list[dict[str, Any]]) -> float | None:
    """Examples per second; None for fewer than two rows or no time between them."""
    timed = [row for row in rows if isinstance(row.get("time"), int | float)]
    if len(timed) < 2:
        return None
    seconds = timed[-1]["time"] - timed[0]["time"]
    examples = timed[-1]["examples_seen"] - timed[0]["examples_seen"]
    return examples / seconds if seconds > 0 and examples > 0 else None


def _parse_lines(text: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines that are rows or events of a record, and how many are neither."""
    lines, dropped = [], 0
    for raw in text.split(b"\n"):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:  # torn, or bytes that are no text
            line = None
        if isinstance(line, dict) and all(type(line.get(name)) is int for name in COUNTS):
            lines.append(line)
        else:
            dropped += 1
    return lines, dropped


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
