"""`study logs`, `retry` and `cancel`: act on single cells through files in their records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import CellName, OptionalCellName, Root, Set, StudyName, root_of, study_of

if TYPE_CHECKING:
    from sweeps.runner.cell_status import Entry
    from sweeps.study import Study

FOLLOW_SECONDS = 0.5  # between two reads of a log


def logs(
    name: StudyName,
    cell: CellName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log.")] = False,
    host: Annotated[
        int, typer.Option(metavar="K", min=0, help="Host index on a multi-host slice.")
    ] = 0,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Show a cell's logs, of all attempts.

    --follow ends when the cell is finished or cancelled, or when nobody runs it and no `study run`
    is alive.

    Exit codes of --follow: 0 the cell is finished or cancelled, 1 it failed, 3 nobody is running
    it, 130 Ctrl-C, which does not stop the cell. 2 bad input.
    """
    from sweeps.runner import cell_status
    from sweeps.runner.follow import readings
    from sweeps.runner.logs import logs_of
    from sweeps.runner.signals import INTERRUPTED
    from sweeps.study import StudyError

    study = study_of(name, None, settings, None)
    folder = _folder(study, root)
    entry = _entry(study, cell, folder)
    if not logs_of(entry.folder, host) and not (follow and entry.to_run):
        raise StudyError(
            f"{entry.cell.id} has no log yet ({entry.state}); --follow waits for it"
            if entry.to_run
            else f"{entry.cell.id} is {entry.state} and has no log of host {host}"
        )
    offsets: dict[Path, int] = {}

    def show() -> None:
        for path in logs_of(entry.folder, host):
            offsets[path] = _print_from(path, offsets.get(path, 0))

    if not follow:
        show()
        return 0
    try:
        # The state is read before the log, so that the last lines of a cell that ends are shown.
        for (last,) in readings(  # noqa: B007
            lambda: [cell_status.entry(entry.cell, entry.folder)], folder, every=FOLLOW_SECONDS
        ):
            show()
    except KeyboardInterrupt:
        print(f"study: stopped following {entry.cell.id}", file=sys.stderr)
        return INTERRUPTED
    if last.to_run:
        error = f" failed: {last.error};" if last.state == "failed" else f" is {last.state};"
        print(
            f"study: {last.cell.id}{error} nobody is running it; `study run {name}` would",
            file=sys.stderr,
        )
    return cell_status.exit_code([last])


def retry(
    name: StudyName,
    cell: OptionalCellName = None,
    failed: Annotated[bool, typer.Option("--failed", help="Retry all failed cells.")] = False,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="Retry all cancelled cells.")
    ] = False,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Retry failed or cancelled cells from their last checkpoint.

    A running `study run` picks them up; otherwise the next one does.
    """
    from sweeps.runner import cell_status
    from sweeps.runner.cancellation import clear
    from sweeps.runner.follow import driver_of
    from sweeps.study import StudyError

    if (cell is None) == (not failed and not cancelled):
        raise StudyError("give either a CELL, or --failed or --cancelled")
    study = study_of(name, None, settings, None)
    folder = _folder(study, root)
    if cell is not None:
        entries = [_entry(study, cell, folder)]
        if entries[0].state not in ("failed", "cancelled"):
            raise StudyError(f"{entries[0].cell.id} is {entries[0].state}: nothing to retry")
    else:
        states = [*["failed"] * failed, *["cancelled"] * cancelled]
        entries = [e for e in cell_status.read(study, folder.parent) if e.state in states]
        if not entries:
            print(f"{study.name}: no cell is {' or '.join(states)}")
            return 0
    for entry in entries:
        clear(entry.folder)
        print(f"{entry.cell.id} will run again")
    driver = driver_of(folder)
    print(f"the sweep of {driver} picks them up" if driver else f"to run them: study run {name}")
    return 0


def cancel(
    name: StudyName,
    cell: OptionalCellName = None,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Cancel a cell, or all unfinished cells of a study.

    Running cells save their state and stop. `study run` skips cancelled cells until `study retry`.
    """
    from sweeps.runner import cell_status
    from sweeps.runner.cancellation import cancel as mark_cancelled
    from sweeps.study import StudyError

    study = study_of(name, None, settings, None)
    folder = _folder(study, root)
    if cell is not None:
        entries = [_entry(study, cell, folder)]
        if entries[0].over:
            raise StudyError(f"{entries[0].cell.id} is {entries[0].state}: nothing to cancel")
    else:
        entries = [e for e in cell_status.read(study, folder.parent) if e.to_run]
        if not entries:
            print(f"{study.name}: no cell is left to cancel")
    for entry in entries:
        mark_cancelled(entry.folder)
        note = "; it saves its state and stops" if entry.holder is not None else ""
        print(f"{entry.cell.id} cancelled{note}")
    return 0


def _folder(study: Study, root: str) -> Path:
    from study.records.storage import resolve

    return study.folder(resolve(root_of(root)).absolute())


def _entry(study: Study, name: str, folder: Path) -> Entry:
    from sweeps.runner import cell_status

    cell = study.cell(name)
    return cell_status.entry(cell, folder / cell.id)


def _print_from(path: Path, offset: int) -> int:
    """Prints a file from byte `offset` on; returns its size."""
    from study.records.storage import bucket_errors

    with bucket_errors(path, "read"), path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    sys.stdout.write(content.decode(errors="replace"))
    sys.stdout.flush()
    return offset + len(content)
