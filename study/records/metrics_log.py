"""The rows of a record: one file that grows, or in a bucket, which cannot append, small parts.

    metrics.jsonl                    in a folder: each row is appended and handed to the system
    metrics/<attempt>-<part>.jsonl   in a bucket: a part is rewritten as it grows

In a bucket, rows that come within `PAUSE` seconds of a write wait for the next row, `flush` or
`close`, because services slow down or refuse faster writes to one object. `flush` precedes every
checkpoint, so a kill loses only rows that the next attempt makes again. At `PART` bytes the next
part begins, which bounds what one row costs.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from study.records.storage import is_bucket, listdir, read, write

METRICS, PARTS = "metrics.jsonl", "metrics"
COUNTS = ("step", "examples_seen", "pairs_seen", "attempt")  # fields of every line
PAUSE = 1.0  # seconds between two writes of one object
PART = 65_536  # bytes


class Log(NamedTuple):
    """The lines of a record, parsed.

    Attributes:
      rows: The valid measurements as logged, in order of attempt.
      attempts: The number of the latest attempt.
      superseded: The number of rows that a later attempt made again.
      dropped: The number of lines that are torn, or not a row or event.
    """

    rows: list[dict[str, Any]]
    attempts: int
    superseded: int
    dropped: int


@dataclass(frozen=True, kw_only=True)
class CellProgress:
    """How far a cell is, from the tail of its log; `time` is that of the last line."""

    step: int = 0
    examples_seen: int = 0
    pairs_seen: int = 0
    attempts: int = 0
    examples_per_second: float | None = None
    time: float | None = None


def read_rows(folder: Path) -> bytes:
    """All lines of a record: its file, then its parts in order; b"" if there are none."""
    try:
        text = read(folder / METRICS)
    except (FileNotFoundError, NotADirectoryError):
        text = b""
    for part in listdir(folder / PARTS):
        if text and not text.endswith(b"\n"):
            text += b"\n"  # ends a torn line, so that it does not spoil the next
        text += read(part)
    return text


def parse(text: bytes) -> Log:
    """Parses lines, and joins the attempts of a cell into one run.

    A `start` event of attempt a at step s supersedes the rows of earlier attempts after s, because
    attempt a repeats those steps.
    """
    lines, dropped = parse_lines(text)
    # In a record that was moved between a folder and a bucket, attempts may be out of order.
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
    """How far the cell in `folder` is, from the tail of its log; zero if there is no log.

    Args:
      tail_bytes: How much of the end of `metrics.jsonl` to read. `examples_per_second` covers the
        latest attempt's rows in it, so it excludes the compilation before the first row.
    """
    path = folder / METRICS
    try:
        if is_bucket(folder) or not path.is_file():
            parts = listdir(folder / PARTS)
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
    lines, _ = parse_lines(tail)
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
    """Examples per second; None with fewer than two rows or no time between them."""
    timed = [row for row in rows if isinstance(row.get("time"), int | float)]
    if len(timed) < 2:
        return None
    seconds = timed[-1]["time"] - timed[0]["time"]
    examples = timed[-1]["examples_seen"] - timed[0]["examples_seen"]
    return examples / seconds if seconds > 0 and examples > 0 else None


def parse_lines(text: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines that are rows or events of a record, and the number of other lines."""
    lines, dropped = [], 0
    for raw in text.split(b"\n"):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:  # torn, or not text
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
            self._file.write("\n")  # ends a torn line, so that it does not spoil the next

    def write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def flush(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        """Closes; every row was handed to the system when it was written."""
        self.close()


class BucketLog:
    """Writes the parts of one attempt. Rows that could not be written go with the next ones."""

    def __init__(self, folder: Path, attempt: int):
        self._folder, self._attempt = folder / PARTS, attempt
        self._part, self._text = 0, b""
        self._unwritten = False
        self._last_write = -math.inf

    def write(self, line: str) -> None:
        row = line.encode() + b"\n"
        if self._text and len(self._text) + len(row) > PART:
            self.flush()
            self._part, self._text = self._part + 1, b""
        self._text += row
        self._unwritten = True
        if time.monotonic() - self._last_write >= PAUSE:
            self.flush()

    def flush(self) -> None:
        if self._unwritten:
            name = f"{self._attempt:05d}-{self._part:05d}.jsonl"
            write(self._folder / name, self._text)
            self._unwritten, self._last_write = False, time.monotonic()

    def close(self) -> None:
        self.flush()

    def discard(self) -> None:
        """Drops the rows that are not in the bucket yet."""
        self._unwritten = False


def open_log(folder: Path, attempt: int) -> FileLog | BucketLog:
    """Opens the log of the cell in `folder` for the rows of `attempt`."""
    return BucketLog(folder, attempt) if is_bucket(folder) else FileLog(folder)
