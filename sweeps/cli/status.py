"""`study status`: where every cell stands, from its record."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.records.storage import resolve
from sweeps.cli.table import table
from sweeps.runner import cell_status as ledger
from sweeps.runner.cell_status import Entry
from sweeps.runner.display import duration, headline, percent, rate
from sweeps.runner.follow import readings
from sweeps.runner.remaining import Remaining
from sweeps.runner.signals import INTERRUPTED
from sweeps.study import Study

WATCH = 2.0  # seconds between two readings


def status(study: Study, root: str, *, watch: bool, as_json: bool) -> int:
    """Shows it, once or for as long as it may change; returns the exit code."""
    folder = resolve(root).absolute()
    if as_json or not watch:
        entries = ledger.read(study, folder)
        left = Remaining(study).seconds(entries)
        if as_json:
            print(json.dumps(_json(study, entries, left), indent=1))
        else:
            print(text(study, entries, left))
        return ledger.exit_code(entries)
    return _watch(study, folder)


def text(study: Study, entries: Sequence[Entry], left: float | None) -> str:
    """The table. `left`: seconds until the study is over, where that is known."""
    rows = [
        (
            e.cell.id,
            e.state,
            study.execution_of(e.cell).slice or "",
            percent(e) if e.progress.examples_seen else "",
            _rate(e),
            duration(e.seconds_left) if e.seconds_left is not None else "",
            str(e.progress.attempts) if e.progress.attempts > 1 else "",
            e.error or headline(e) or (f"{e.holder}" if e.holder else ""),
        )
        for e in entries
    ]
    head = ("cell", "state", "machine", "seen", "rate", "left", "attempt", "")
    return f"{table(head, rows, right={3, 4, 5, 6})}\n{_line(study, entries, left)}"


def _rate(e: Entry) -> str:
    """Of a running cell; nothing while that cannot be told yet."""
    speed = e.progress.examples_per_second
    return rate(speed) if e.state == "running" and speed else ""


def _line(study: Study, entries: Sequence[Entry], left: float | None) -> str:
    states = ", ".join(f"{n} {state}" for state, n in ledger.count(entries).items())
    more = f"; about {duration(left)} left" if left else ""
    return f"{study.name}: {len(entries)} cells: {states}{more}"


def _json(study: Study, entries: Sequence[Entry], left: float | None) -> dict[str, Any]:
    return {
        "study": study.name,
        "states": ledger.count(entries),
        "seconds_left": left,
        "cells": [
            {
                "id": e.cell.id,
                "state": e.state,
                "slice": study.execution_of(e.cell).slice,
                "step": e.progress.step,
                "steps": e.cell.steps,
                "examples_seen": e.progress.examples_seen,
                "examples": e.cell.examples,
                "attempts": e.progress.attempts,
                "examples_per_second": e.progress.examples_per_second,
                "seconds_left": e.seconds_left,
                "error": e.error,
                "holder": str(e.holder) if e.holder else None,
                "folder": str(e.folder),
                "summary": e.done.get("summary", {}),
            }
            for e in entries
        ],
    }


def _watch(study: Study, folder: Path) -> int:
    """On a terminal the table, redrawn; elsewhere a line whenever something changed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    remaining = Remaining(study)
    looks = readings(lambda: ledger.read(study, folder), study.folder(folder), every=WATCH)
    entries: Sequence[Entry] = ()
    try:
        if sys.stdout.isatty():
            with Live(console=Console(highlight=False), auto_refresh=False) as live:
                for entries in looks:
                    live.update(
                        Text(text(study, entries, remaining.seconds(entries))), refresh=True
                    )
        else:
            before = None
            for entries in looks:
                if (states := ledger.count(entries)) != before:
                    print(_line(study, entries, remaining.seconds(entries)), flush=True)
                    before = states
    except KeyboardInterrupt:
        print(f"study: no longer watching {study.name}", file=sys.stderr)
        return INTERRUPTED
    if any(e.to_run for e in entries):
        print(f"study: nobody is running {study.name}; study run starts it", file=sys.stderr)
    return ledger.exit_code(entries)
