"""The lines of one record: parsed, and the attempts of a cell stitched into one run.

Standard library only, so that a status table over many cells starts at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from analysis.records.storage import children, content, is_bucket, place

METRICS, PARTS = "metrics.jsonl", "metrics"
COUNTS = ("step", "examples_seen", "pairs_seen", "attempt")


class Lines(NamedTuple):
    """What `metrics.jsonl` holds: the rows that stand, and what was left out of them."""

    rows: list[dict[str, Any]]
    attempts: int
    superseded: int
    dropped: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a cell is. `examples_per_second` is None while it cannot be told."""

    step: int = 0
    examples_seen: int = 0
    pairs_seen: int = 0
    attempts: int = 0
    examples_per_second: float | None = None
    time: float | None = None


def read_text(folder: Path) -> bytes:
    """All lines of a record: of `metrics.jsonl`, then of the parts that a bucket has instead."""
    text = content(folder / METRICS)
    for part in children(folder / PARTS):
        if text and not text.endswith(b"\n"):
            text += b"\n"
        text += content(part)
    return text


def read_lines(text: bytes) -> Lines:
    """Measurements among the lines of a record, in the order in which attempts made them.

    After a `start` event of attempt a at step s, rows of earlier attempts beyond s are
    superseded: the new attempt took those steps again. Lines that are torn, or are not a row of
    a record, are dropped and counted.
    """
    parsed, dropped = _parse(text)
    # A record that was moved between a folder and a bucket may tell an earlier attempt later.
    parsed.sort(key=lambda line: line["attempt"])
    starts = [line for line in parsed if line.get("event") == "start"]
    measured = [line for line in parsed if "event" not in line]

    def stands(row: dict[str, Any]) -> bool:
        return all(s["attempt"] <= row["attempt"] or row["step"] <= s["step"] for s in starts)

    rows = [_numbers(row) for row in measured if stands(row)]
    attempts = max((line["attempt"] for line in parsed), default=0)
    return Lines(rows, attempts, len(measured) - len(rows), dropped)


def training_progress(folder: str | Path, *, tail_bytes: int = 65_536) -> Progress:
    """How far the cell in `folder` is, from the tail of its record.

    Args:
      folder: `<root>/<study>/<cell id>`; one that does not exist yet has no progress.
      tail_bytes: how much of the end of `metrics.jsonl` is read. The rate is over those of its
        rows that the latest attempt wrote, so without the compilation before its first row.
    """
    lines, _ = _parse(_tail(place(folder), tail_bytes))
    if not lines:
        return Progress()
    last = max(lines, key=lambda line: line["attempt"])
    latest = [line for line in lines if line["attempt"] == last["attempt"]]
    last = latest[-1]
    return Progress(
        step=last["step"],
        examples_seen=last["examples_seen"],
        pairs_seen=last["pairs_seen"],
        attempts=last["attempt"],
        examples_per_second=_rate([line for line in latest if "event" not in line]),
        time=last.get("time"),
    )


def _tail(folder: Path, tail_bytes: int) -> bytes:
    """The last whole lines of a record; of one in a bucket its last part, which is small."""
    path = folder / METRICS
    if is_bucket(folder) or not path.is_file():
        parts = children(folder / PARTS)
        return content(parts[-1] if parts else path)
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - tail_bytes))
        tail = file.read()
    return tail.partition(b"\n")[2] if size > tail_bytes else tail  # the first line is cut


def _rate(rows: list[dict[str, Any]]) -> float | None:
    timed = [row for row in rows if isinstance(row.get("time"), int | float)]
    if len(timed) < 2:
        return None
    seconds = timed[-1]["time"] - timed[0]["time"]
    examples = timed[-1]["examples_seen"] - timed[0]["examples_seen"]
    return examples / seconds if seconds > 0 and examples > 0 else None


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """The counts, the time and the metrics of a row: a metric has a slash in its name."""
    return {
        key: value if key in COUNTS else float(value)
        for key, value in row.items()
        if key in COUNTS or (("/" in key or key == "time") and type(value) in (int, float))
    }


def _parse(text: bytes) -> tuple[list[dict[str, Any]], int]:
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
