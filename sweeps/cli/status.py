"""`study status`: the state of every cell, from the records."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import Json, Only, Root, Set, StudyName, root_of, study_of

if TYPE_CHECKING:
    from study.records.interruptions import Interruption
    from sweeps.runner.cell_status import CellStatus
    from sweeps.study import Study

WATCH_SECONDS = 2.0  # between two reads of the records


def status(
    name: StudyName,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep showing it until nothing is left to wait for.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show the state of every cell of a study.

    --watch ends when no cell is left to run, or when nobody has trained one for a while. Ctrl-C
    ends the watch, not the cells.

    Exit codes: 0 all cells are finished, 1 some failed, 3 some are unfinished, 130 Ctrl-C, 2 bad
    input.
    """
    from study.records.interruptions import read_interruptions
    from study.records.storage import resolve
    from sweeps.runner import cell_status
    from sweeps.runner.remaining import Remaining

    study = study_of(name, None, settings, only)
    folder = resolve(root_of(root)).absolute()
    if watch and not as_json:
        return _watch(study, folder)
    entries = cell_status.read(study, folder)
    seconds = Remaining(study).seconds(entries)
    interruptions = {
        e.cell.id: read_interruptions(e.folder) for e in entries if len(e.attempts.all) > 1
    }
    if as_json:
        print(json.dumps(_json(study, entries, seconds, interruptions), indent=1))
    else:
        print(_table(study, entries, seconds))
        if any(interruptions.values()):
            print(_lost(interruptions))
    return cell_status.exit_code(entries)


def _lost(interruptions: Mapping[str, Sequence[Interruption]]) -> str:
    """What all interruptions cost, in one line."""
    from sweeps.runner.display import duration

    every = [one for cell in interruptions.values() for one in cell]
    seconds = sorted(one.seconds for one in every if one.seconds is not None)
    text = f"{len(every)} interruption{'s' * (len(every) != 1)}"
    if seconds:
        median = duration(statistics.median(seconds))
        text += f": {median} until training again in the median, {duration(seconds[-1])} at most"
    return f"{text}; {sum(one.steps for one in every):,} steps repeated"


def _watch(study: Study, folder: Path) -> int:
    """Redraws the table on a terminal; elsewhere prints a line whenever a state changes."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from sweeps.runner import cell_status
    from sweeps.runner.follow import readings
    from sweeps.runner.remaining import Remaining
    from sweeps.runner.signals import INTERRUPTED

    remaining = Remaining(study)
    state = cell_status.StudyState(study.cells, study.folder(folder))
    reads = readings(state.refresh, every=max(WATCH_SECONDS, state.store.poll_s))
    entries: Sequence[CellStatus] = ()
    try:
        if sys.stdout.isatty():
            with Live(console=Console(highlight=False), auto_refresh=False) as live:
                for entries in reads:
                    text = Text(_table(study, entries, remaining.seconds(entries)))
                    live.update(text, refresh=True)
        else:
            shown = None
            for entries in reads:
                if (states := cell_status.count(entries)) != shown:
                    print(_summary(study, entries, remaining.seconds(entries)), flush=True)
                    shown = states
    except KeyboardInterrupt:
        print(f"study: stopped watching {study.name}", file=sys.stderr)
        return INTERRUPTED
    if any(e.runnable for e in entries):
        print(f"study: nobody trains cells of {study.name}; `study run` would", file=sys.stderr)
    return cell_status.exit_code(entries)


def _table(study: Study, entries: Sequence[CellStatus], seconds_left: float | None) -> str:
    from sweeps.cli.table import table
    from sweeps.runner.display import duration, headline, percent, rate

    rows = []
    for e in entries:
        speed = e.progress.examples_per_second if e.state == "running" else None
        rows.append(
            (
                e.cell.id,
                e.state,
                study.execution_of(e.cell).slice or "",
                percent(e) if e.progress.examples_seen else "",
                rate(speed) if speed else "",
                duration(e.seconds_left) if e.seconds_left is not None else "",
                str(e.progress.attempts) if e.progress.attempts > 1 else "",
                e.error or headline(e.done) or (str(e.owner) if e.owner else ""),
            )
        )
    head = ("cell", "state", "machine", "seen", "rate", "left", "attempt", "result")
    return f"{table(head, rows, right={3, 4, 5, 6})}\n{_summary(study, entries, seconds_left)}"


def _summary(study: Study, entries: Sequence[CellStatus], seconds_left: float | None) -> str:
    from sweeps.runner import cell_status
    from sweeps.runner.display import duration

    states = ", ".join(f"{n} {state}" for state, n in cell_status.count(entries).items())
    left = f"; about {duration(seconds_left)} left" if seconds_left else ""
    return f"{study.name}: {len(entries)} cells: {states}{left}"


def _json(
    study: Study,
    entries: Sequence[CellStatus],
    seconds_left: float | None,
    interruptions: Mapping[str, Sequence[Interruption]],
) -> dict[str, Any]:
    from sweeps.runner import cell_status

    return {
        "study": study.name,
        "states": cell_status.count(entries),
        "seconds_left": seconds_left,
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
                "history": [asdict(attempt) for attempt in e.attempts.all],
                "interruptions": [one._asdict() for one in interruptions.get(e.cell.id, ())],
                "examples_per_second": e.progress.examples_per_second,
                "seconds_left": e.seconds_left,
                "error": e.error,
                "owner": str(e.owner) if e.owner else None,
                "folder": str(e.folder),
                "summary": e.done.get("summary", {}),
            }
            for e in entries
        ],
    }
