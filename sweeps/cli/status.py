"""`study status`: the state of every cell, from the records."""

from __future__ import annotations

import functools
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import Json, Only, Root, Set, complete_study, root_of, study_of

if TYPE_CHECKING:
    from study.records.interruptions import Interruption
    from sweeps.runner.cell_status import CellStatus
    from sweeps.study import Study

WATCH_SECONDS = 2.0  # between two reads of the records
CELL_COLUMNS = ("cell", "state", "machine", "seen", "rate", "left", "attempt", "result")


def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY",
            show_default="all under the root",
            help="A built-in study, or a grid file (.py).",
            autocompletion=complete_study,
        ),
    ] = None,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="Show only what is in this state (repeatable)."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Columns: those of the table, a cell's fields such as optimizer.learning_rate, "
            "or metrics such as eval/zero_shot/test_font/top1.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Sort by a column; -COLUMN: the largest first."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep showing it until nothing is left to wait for.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show every cell of a study, or every study of a root.

    --watch ends when no cell is left to run, or when nobody has trained one for a while. Ctrl-C
    ends the watch, not the cells.
    """
    from study.records.interruptions import read_interruptions
    from study.records.storage import resolve
    from sweeps.cli import overview
    from sweeps.cli.columns import check_states
    from sweeps.runner import cell_status
    from sweeps.runner.remaining import Remaining
    from sweeps.study import StudyError

    states, chosen = check_states(state), columns.split(",") if columns else []
    folder = resolve(root_of(root)).absolute()
    if name is None:
        if watch or only or settings:
            raise StudyError("--watch, --only and --set need a STUDY")
        return overview.show(folder, states, columns=chosen, sort=sort, as_json=as_json)
    study = study_of(name, None, settings, only)
    show = functools.partial(_table, study, states=states, chosen=chosen, sort=sort)
    if watch and not as_json:
        return _watch(study, folder, show)
    entries = cell_status.read(study, folder)
    seconds = Remaining(study).seconds(entries)
    interruptions = {
        e.cell.id: read_interruptions(e.folder) for e in entries if len(e.attempts.all) > 1
    }
    if as_json:
        shown = [e for e in entries if e.state in states]
        about = _json(study, shown, seconds, interruptions)
        print(json.dumps({**about, "states": cell_status.count(entries)}, indent=1))
    else:
        print(show(entries, seconds))
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


def _watch(
    study: Study, folder: Path, show: Callable[[Sequence[CellStatus], float | None], str]
) -> int:
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
                    text = Text(show(entries, remaining.seconds(entries)))
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


def _table(
    study: Study,
    entries: Sequence[CellStatus],
    seconds_left: float | None,
    *,
    states: Sequence[str],
    chosen: Sequence[str],
    sort: str | None,
) -> str:
    from sweeps.cli.columns import cell_columns, format_rows

    columns = cell_columns(study, [*chosen, *([sort.removeprefix("-")] if sort else ())])
    shown = [e for e in entries if e.state in states]
    text = format_rows(shown, columns, sort=sort, chosen=chosen or CELL_COLUMNS)
    return f"{text}\n{_summary(study, entries, seconds_left)}"


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
    return {
        "study": study.name,
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
