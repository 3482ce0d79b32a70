"""`study status` without a study: one line for each study that has records under a root."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.cli.columns import Column, format_rows
from sweeps.runner import cell_status
from sweeps.runner.cell_status import STATES, CellStatus
from sweeps.runner.display import duration
from sweeps.runner.remaining import Remaining
from sweeps.study import Study, StudyError

SUMMARY = ("study", "cells", *STATES, "left")


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """Where a study stands. `entries` is None where the grid of a folder is not known."""

    name: str
    entries: Sequence[CellStatus] | None = None
    seconds_left: float | None = None

    def count(self, state: str) -> int:
        return sum(e.state == state for e in self.entries or ())


def read_all(folder: Path) -> list[StudyStatus]:
    """Every study of which a cell has begun, in the order of their folders.

    Raises:
      StudyError: no folder of a study is under it.
      RecordError: the storage does not respond.
    """
    from study.records.storage import listdir
    from sweeps.registry import builtin_studies, load_study

    folders = sorted(place.name for place in listdir(folder) if not place.name.startswith("."))
    by_group: dict[str, list[Study]] = {}
    for name in builtin_studies():
        study = load_study(name)
        by_group.setdefault(study.group, []).append(study)
    rows = []
    for name in folders:
        for study in by_group.get(name, []):
            entries = cell_status.read(study, folder)
            if any(e.state != "pending" for e in entries):
                seconds = Remaining(study).seconds(entries)
                rows.append(StudyStatus(name=study.name, entries=entries, seconds_left=seconds))
        if name not in by_group and any(listdir(folder / name)):
            rows.append(StudyStatus(name=name))
    if not rows:
        raise StudyError(f"no records in {folder}; `study run STUDY` creates them")
    return rows


def show(
    folder: Path,
    states: Sequence[str],
    *,
    columns: Sequence[str],
    sort: str | None,
    as_json: bool,
) -> int:
    """Prints the studies that have a cell in one of these states; the exit code of all cells."""
    rows = read_all(folder)
    every = [e for row in rows for e in row.entries or ()]
    if set(states) != set(STATES):
        rows = [row for row in rows if any(row.count(state) for state in states)]
    if as_json:
        print(json.dumps([_json(row) for row in rows], indent=1))
        return cell_status.exit_code(every)
    known: dict[str, Column[StudyStatus]] = {
        "study": lambda row: (row.name, row.name),
        "cells": lambda row: (n := len(row.entries or ()), str(n) if n else "grid unknown"),
        **{state: _count(state) for state in STATES},
        "left": lambda row: (
            (row.seconds_left, duration(row.seconds_left or 0)) if row.seconds_left else (None, "")
        ),
    }
    print(format_rows(rows, known, sort=sort, chosen=columns or SUMMARY))
    return cell_status.exit_code(every)


def _count(state: str) -> Column[StudyStatus]:
    return lambda row: (n := row.count(state), str(n) if n else "")


def _json(row: StudyStatus) -> dict[str, Any]:
    return {
        "study": row.name,
        "cells": None if row.entries is None else len(row.entries),
        "states": None if row.entries is None else cell_status.count(row.entries),
        "seconds_left": row.seconds_left,
    }
