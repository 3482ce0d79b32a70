"""What interruptions cost a cell, from the lines of its record: seconds and repeated steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from study.records.metrics_log import parse_lines, read_rows
from study.records.storage import read

ATTEMPTS = "attempts.json"  # of the worker; absent where `train` was called without one


class Interruption(NamedTuple):
    """What it took to train again.

    Attributes:
      attempt: the number of the attempt that trained again.
      seconds: from the end of the attempt before it that trained to its own first chunk of steps;
        None for records of versions that did not log the first chunk.
      steps: recorded before the interruption and repeated after it.
    """

    attempt: int
    seconds: float | None
    steps: int


def find_interruptions(
    lines: Iterable[dict[str, Any]], ends: Sequence[float] = ()
) -> list[Interruption]:
    """The interruptions of a cell that were followed by training, oldest first.

    An attempt that ended before its first chunk belongs to the interruption that it is part of.

    Arguments:
      lines: of the record, see `study.records.metrics_log.parse_lines`.
      ends: when attempts ended, in seconds since 1970. The last line of an attempt may be minutes
        older. An attempt without an end ended with its last line.
    """
    attempts: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        attempts.setdefault(line["attempt"], []).append(line)
    interruptions: list[Interruption] = []
    last: dict[str, Any] | None = None  # line of the attempt before that trained
    ended: float | None = None
    reached = 0
    for attempt, own in sorted(attempts.items()):
        begun = own[0].get("time")
        if last is not None and ended is None:
            ended = last.get("time")
            if ended is not None and begun is not None:
                ended = min((end for end in ends if ended <= end <= begun), default=ended)
        training = next((line for line in own if line.get("event") == "training"), None)
        trained = training is not None or any("event" not in line for line in own)
        if last is not None and trained:
            again = None if training is None else training.get("time")
            seconds = None if ended is None or again is None else max(0.0, again - ended)
            steps = max(0, reached - own[0]["step"])
            interruptions.append(Interruption(attempt, seconds, steps))
        if last is None or trained:
            last, ended = own[-1], None
            reached = max(line["step"] for line in own)
    return interruptions


def read_interruptions(folder: Path, text: bytes | None = None) -> list[Interruption]:
    """The interruptions of the cell in `folder`; `text` are the lines of its record, if read."""
    lines, _ = parse_lines(read_rows(folder) if text is None else text)
    if all(line["attempt"] <= 1 for line in lines):
        return []
    try:
        value = json.loads(read(folder / ATTEMPTS))
        ends = [float(a["ended"]) for a in value["attempts"] if a["ended"] is not None]
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        ends = []
    return find_interruptions(lines, ends)
