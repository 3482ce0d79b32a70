"""`study logs`, `retry` and `cancel`: single cells, told by files that whoever runs them reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.cli.options import Name, Root, Set, root_of

EXAMPLES = {
    "logs": "Example: study logs demo b512-sigmoid-s0 --follow",
    "retry": "Example: study retry demo --failed && study run demo",
    "cancel": "Example: study cancel demo b512-sigmoid-s0",
}
WAIT = 0.5  # seconds between two looks at a log

MaybeCell = Annotated[
    str | None, typer.Argument(metavar="[CELL]", help="A cell id, or how it begins.")
]


def logs(
    name: Name,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell id, or how it begins.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while it runs.")] = False,
    host: Annotated[int, typer.Option("--host", min=0, help="Of a slice: which process.")] = 0,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Show what the processes of a cell have printed, in all its tries.

    With --follow it ends when the cell is over or cancelled, or when nobody runs it and no
    `study run` is alive that would.

    Exit codes of --follow: 0 the cell is over or cancelled, 1 it failed, 3 nobody is running it,
    130 Ctrl-C, which does not stop the cell. 2 bad input.
    """
    from sweeps.runner import cell_status as ledger
    from sweeps.runner.follow import readings
    from sweeps.runner.logs import logs_of
    from sweeps.runner.signals import INTERRUPTED
    from sweeps.study import StudyError

    study = _study(name, settings)
    entry = _entry(study, cell, root)
    if not logs_of(entry.folder, host) and not (follow and entry.to_run):
        raise StudyError(
            f"{entry.cell.id} has printed nothing yet ({entry.state}); --follow waits for it"
            if entry.to_run
            else f"{entry.cell.id} is {entry.state}, and has no log of process {host}"
        )
    at: dict[Path, int] = {}

    def show() -> None:
        for path in logs_of(entry.folder, host):
            at[path] = _print_from(path, at.get(path, 0))

    if not follow:
        show()
        return 0

    def read() -> list[ledger.Entry]:
        return [ledger.entry(entry.cell, entry.folder)]

    try:
        # The state is read before the logs, so that what is printed before the end is shown.
        for (last,) in readings(read, study.folder(_folder(root)), every=WAIT):  # noqa: B007
            show()
    except KeyboardInterrupt:
        print(f"study: no longer following {entry.cell.id}", file=sys.stderr)
        return INTERRUPTED
    if last.to_run:
        print(f"study: {_left_alone(last)}; study run {name} runs it", file=sys.stderr)
    return ledger.exit_code([last])


def retry(
    name: Name,
    cell: MaybeCell = None,
    failed: Annotated[bool, typer.Option("--failed", help="All cells that failed.")] = False,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="All cells that were cancelled.")
    ] = False,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Lets cells that failed or were cancelled run again, from where their records stop.

    A `study run` that is at work takes them up; otherwise the next one does.
    """
    from sweeps.runner import cell_status as ledger
    from sweeps.runner.cancellation import clear
    from sweeps.runner.follow import driver_of
    from sweeps.study import StudyError

    if (cell is None) == (not failed and not cancelled):
        return _usage("give a CELL, or --failed, or --cancelled")
    study = _study(name, settings)
    states = {s for s, asked in (("failed", failed), ("cancelled", cancelled)) if asked}
    if cell is not None:
        entry = _entry(study, cell, root)
        if entry.state not in ("failed", "cancelled"):
            raise StudyError(f"{entry.cell.id} is {entry.state}: nothing to retry")
        chosen = [entry]
    else:
        chosen = [e for e in ledger.read(study, _folder(root)) if e.state in states]
    for entry in chosen:
        clear(entry.folder)
        print(f"{entry.cell.id} will run again")
    if not chosen:
        print(f"{study.name}: no cell is {' or '.join(sorted(states))}")
    elif driver := driver_of(study.folder(_folder(root))):
        print(f"the run of {driver} takes them up")
    else:
        print(f"to run them: study run {name}")
    return 0


def cancel(
    name: Name,
    cell: MaybeCell = None,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Stops a cell, or all of a study that are not over, wherever they run.

    They save what they have. `study run` passes them over until `study retry`.
    """
    from sweeps.runner import cell_status as ledger
    from sweeps.runner.cancellation import cancel as mark
    from sweeps.study import StudyError

    study = _study(name, settings)
    if cell is not None:
        chosen = [_entry(study, cell, root)]
        if chosen[0].over:
            raise StudyError(f"{chosen[0].cell.id} is {chosen[0].state}: nothing to cancel")
    else:
        chosen = [e for e in ledger.read(study, _folder(root)) if e.to_run]
    for entry in chosen:
        mark(entry.folder)
        stops = "; it saves what it has and stops" if entry.holder is not None else ""
        print(f"{entry.cell.id} cancelled{stops}")
    if not chosen:
        print(f"{study.name}: no cell is left to cancel")
    return 0


def _study(name: str, settings: list[str] | None) -> Any:
    from sweeps.registry import load_study
    from sweeps.selection import select

    return select(load_study(name), settings=settings or [])


def _entry(study: Any, cell: str, root: str) -> Any:
    from sweeps.runner import cell_status as ledger

    found = study.cell(cell)
    return ledger.entry(found, study.folder(_folder(root)) / found.id)


def _folder(root: str) -> Path:
    from study.records.storage import resolve

    return resolve(root_of(root)).absolute()


def _left_alone(entry: Any) -> str:
    """Why nothing more will come of a cell that is not over."""
    if entry.state == "failed":
        return f"{entry.cell.id} failed: {entry.error}; nobody is running it"
    return f"nobody is running {entry.cell.id} ({entry.state})"


def _print_from(path: Path, at: int) -> int:
    """Prints what a file has from byte `at` on; returns where it ends."""
    from study.records.storage import bucket_errors

    with bucket_errors(path, "read"), path.open("rb") as file:
        file.seek(at)
        text = file.read()
    sys.stdout.write(text.decode(errors="replace"))
    sys.stdout.flush()
    return at + len(text)


def _usage(text: str) -> int:
    from sweeps.study import StudyError

    raise StudyError(f"{text}; see --help")
