"""`study logs`, `retry` and `cancel`: act on single cells through files in their records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import CellName, OptionalCellName, Root, Set, StudyName, root_of, study_of

if TYPE_CHECKING:
    from sweeps.runner.cell_status import CellStatus
    from sweeps.study import Study


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

    --follow ends when the cell is finished, failed or cancelled, or when nobody has trained it for
    a while.
    """
    from sweeps.runner import cell_status
    from sweeps.runner.follow import readings
    from sweeps.runner.logs import logs_of
    from sweeps.runner.signals import INTERRUPTED
    from sweeps.runner.store import open_store
    from sweeps.study import StudyError

    study = study_of(name, None, settings, None)
    folder = _folder(study, root)
    entry = _entry(study, cell, folder)
    if not logs_of(entry.folder, host) and not (follow and entry.runnable):
        raise StudyError(
            f"{entry.cell.id} has no log yet ({entry.state}); --follow waits for it"
            if entry.runnable
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
            lambda: [cell_status.read_cell(entry.cell, entry.folder)],
            every=open_store(folder).poll_s,
        ):
            show()
    except KeyboardInterrupt:
        print(f"study: stopped following {entry.cell.id}", file=sys.stderr)
        return INTERRUPTED
    if last.state == "failed":
        print(f"study: {last.cell.id} failed: {last.error}", file=sys.stderr)
    elif last.runnable:
        print(
            f"study: {last.cell.id} is {last.state}; nobody trains it; `study run {name}` would",
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

    Each gets new budgets of attempts. Workers that still run pick it up.
    """
    from sweeps.runner import cell_status, marks
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
        marks.retry(entry)
        print(f"{entry.cell.id} will run again")
    print(f"workers of {study.name} pick them up; to start some: study run {name}")
    return 0


def cancel(
    name: StudyName,
    cell: OptionalCellName = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Instead stop the workers of this `study run --detach`; its cells stay runnable.",
        ),
    ] = None,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Cancel a cell, or all unfinished cells of a study.

    Running cells save their state and stop. `study run` skips cancelled cells until `study retry`.
    """
    from sweeps.runner import cell_status, marks
    from sweeps.study import StudyError

    study = study_of(name, None, settings, None)
    folder = _folder(study, root)
    if run is not None:
        if cell is not None:
            raise StudyError("give either a CELL or --run")
        marks.request_stop(folder, run)
        print(f"the workers of run {run} save their state and stop")
        return 0
    if cell is not None:
        entries = [_entry(study, cell, folder)]
        if entries[0].finished:
            raise StudyError(f"{entries[0].cell.id} is {entries[0].state}: nothing to cancel")
    else:
        entries = [e for e in cell_status.read(study, folder.parent) if e.runnable]
        if not entries:
            print(f"{study.name}: no cell is left to cancel")
    for entry in entries:
        marks.cancel(entry.folder)
        note = "; it saves its state and stops" if entry.owner is not None else ""
        print(f"{entry.cell.id} cancelled{note}")
    return 0


def _folder(study: Study, root: str) -> Path:
    from study.records.storage import resolve

    return study.folder(resolve(root_of(root)).absolute())


def _entry(study: Study, name: str, folder: Path) -> CellStatus:
    from sweeps.runner import cell_status

    cell = study.cell(name)
    return cell_status.read_cell(cell, folder / cell.id)


def _print_from(path: Path, offset: int) -> int:
    """Prints a file from byte `offset` on; returns its size."""
    from study.records.storage import bucket_errors

    with bucket_errors(path, "read"), path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    sys.stdout.write(content.decode(errors="replace"))
    sys.stdout.flush()
    return offset + len(content)
