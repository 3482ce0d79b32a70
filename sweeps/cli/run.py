"""`study run`: run all unfinished cells of a study on Ray."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import (
    Address,
    Data,
    DecodeWorkers,
    ExecutionFile,
    Json,
    Only,
    Root,
    Set,
    StudyName,
    root_of,
    study_of,
)

if TYPE_CHECKING:
    from sweeps.runner.run import Result
    from sweeps.study import Study


def run(
    name: StudyName,
    root: Root = "runs",
    data: Data = None,
    workers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TYPE=]N",
            show_default="all cores; on slices those that are idle",
            help="Number of workers, of a type of machine such as v4-32=4 (repeatable).",
        ),
    ] = None,
    run_first: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Start these cells before the others; patterns as for --only (repeatable).",
        ),
    ] = None,
    only: Only = None,
    settings: Set = None,
    skip_done_in: Annotated[
        str | None,
        typer.Option(
            metavar="SNAPSHOT",
            help="Skip cells that are done in this snapshot; `pull --merge-from` joins the two.",
        ),
    ] = None,
    address: Address = None,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Leave the workers running on the cluster, and return. Slices that come up later "
            "are used if --workers TYPE=N asks for as many.",
        ),
    ] = False,
    execution: ExecutionFile = None,
    decode_workers: DecodeWorkers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, in order, and run nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Run all unfinished cells of a study.

    Ray starts workers, which claim cells one after another: on the cores of this machine, or on a
    cluster (--address, or RAY_ADDRESS, which `ray job submit` sets). Repeat the command at any time
    to continue. Ctrl-C asks the workers to save and stop; a second Ctrl-C quits at once.
    """
    from study.records.storage import resolve
    from sweeps.runner.display import report_on
    from sweeps.runner.machines import is_local, machines
    from sweeps.runner.run import run
    from sweeps.runner.signals import INTERRUPTED
    from sweeps.selection import matching_ids

    study = study_of(name, data, settings, only, execution, decode_workers=decode_workers)
    root = root_of(root)
    if skip_done_in:
        unfinished = _without_done(study, skip_done_in)
        if unfinished is None:
            print(f"{study.name}: all {len(study.cells)} cells are done in {skip_done_in}")
            return 0
        study = unfinished
    first = matching_ids(study, run_first or [])
    if dry_run:
        return _dry_run(study, root, first, as_json=as_json)
    out = sys.stderr if as_json else sys.stdout
    result = run(
        study,
        root,
        workers=_worker_counts(study, workers or []),
        first=first,
        address=address,
        detach=detach,
        report=report_on(out),
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(result), indent=1))
    elif not result.detached:
        print(_summary(result, on_cores=all(map(is_local, machines(study).values()))))
    if result.detached:
        words = [name, *(["--root", root] if root != "runs" else [])]
        words += [word for setting in settings or [] for word in ("--set", setting)]
        records = shlex.join(words)
        print(
            f"workers that go on without this command: {result.detached} (run {result.run_id})\n"
            f"to watch them: study status {records} --watch\n"
            f"to stop them: study cancel {records} --run {result.run_id}",
            file=out,
        )
    elif result.exit_code == INTERRUPTED:
        print(f"interrupted; to continue: {this_command()}", file=out)
    elif result.exit_code == 1:
        print(
            "FAILED.json in the folders of the failed cells, in "
            f"{study.folder(resolve(root))}, says why; to retry them: {this_command()}",
            file=out,
        )
    return result.exit_code


def this_command() -> str:
    """The command line of this process, as one types it."""
    return shlex.join(["study", *sys.argv[1:]])


def _worker_counts(study: Study, texts: list[str]) -> dict[str, int]:
    """`--workers v4-32=4` (of a type) and `--workers 8` (of each type that the cells ask for).

    Raises:
      StudyError: it is neither.
    """
    from study.config.hardware import HardwareError
    from sweeps.runner.machines import machines, parse_machine
    from sweeps.study import StudyError

    counts: dict[str, int] = {}
    for text in texts:
        name, equals, count = text.rpartition("=")
        if not count.isdigit() or int(count) < 1 or bool(name) != bool(equals):
            raise StudyError(
                f"--workers {text}: give a number of workers (8), or one for a type of machine "
                "(v4-32=4)"
            )
        try:
            types = [parse_machine(name)] if name else sorted(set(machines(study).values()))
        except HardwareError as error:
            raise StudyError(f"--workers {text}: {error}") from None
        counts |= dict.fromkeys(types, int(count))
    return counts


def _without_done(study: Study, path: str) -> Study | None:
    """The study without the cells that are done in a snapshot; None if no cell is left.

    Raises:
      AnalysisError: not a snapshot, or a changed one.
    """
    from analysis.records.frame import open_snapshot

    snapshot = open_snapshot(path)
    records = snapshot.records(study.group) if study.group in snapshot.studies() else []
    done = {record.id for record in records if record.done}
    cells = tuple(cell for cell in study.cells if cell.id not in done)
    return dataclasses.replace(study, cells=cells) if cells else None


def _dry_run(study: Study, root: str, first: list[str], *, as_json: bool) -> int:
    from study.records.storage import resolve
    from sweeps.cli.table import table
    from sweeps.runner import cell_status
    from sweeps.runner.claims import in_order, ranks
    from sweeps.runner.display import percent
    from sweeps.runner.machines import machines

    machine_by_id = machines(study)
    entries = cell_status.read(study, resolve(root).absolute())
    queue = in_order([e for e in entries if e.runnable], ranks(study, first))
    if as_json:
        cells = [
            {
                "id": e.cell.id,
                "state": e.state,
                "steps": e.cell.steps,
                "slice": machine_by_id[e.cell.id],
            }
            for e in queue
        ]
        states = cell_status.count(entries)
        print(json.dumps({"study": study.name, "states": states, "to_run": cells}, indent=1))
        return 0
    rows = [
        (e.cell.id, e.state, percent(e), str(e.cell.batch_size), f"{e.cell.steps:,}",
         f"{e.cell.examples:,}", machine_by_id[e.cell.id])
        for e in queue
    ]  # fmt: skip
    if rows:
        head = ("cell", "state", "seen", "batch size", "steps", "examples", "machine")
        print(table(head, rows, right={2, 3, 4, 5}))
    cancelled = sum(e.state == "cancelled" for e in entries)
    note = f", {cancelled} cancelled" if cancelled else ""
    print(f"{len(queue)} cells to run, {sum(e.finished for e in entries)} finished{note}")
    return 0


def _summary(result: Result, *, on_cores: bool) -> str:
    """One line; with the share of time that cores spent training, if no cell ran on a slice."""
    from sweeps.runner.display import duration, rate
    from sweeps.runner.signals import INTERRUPTED

    states = ", ".join(f"{n} {state}" for state, n in result.states.items())
    if not result.parallel:
        idle = "" if result.exit_code == INTERRUPTED else "nothing to run: "
        return f"{result.study}: {idle}{states}"
    count = f"{len(result.ran)} cell{'' if len(result.ran) == 1 else 's'}"
    text = f"{result.study}: {states}; {count} in {duration(result.seconds)}"
    if on_cores and result.ran and result.train_seconds:
        share = result.train_seconds / (result.seconds * result.parallel)
        speed = rate(result.examples / result.seconds / result.parallel)
        text += f" on {result.parallel} cores ({share:.0%} of it training); {speed} per core"
    return text
