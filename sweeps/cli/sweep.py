"""`study run` and `study train`."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.options import (
    Address,
    Data,
    ExecutionFile,
    Json,
    Name,
    Only,
    Root,
    Set,
    root_of,
    study_of,
)

EXAMPLES = {
    "run": "Example: study run demo --only batch_size=512 --parallel 2",
    "train": "Example: study train demo b512-sigmoid-s0",
}


def run(
    name: Name,
    root: Root = "runs",
    data: Data = None,
    parallel: Annotated[
        int | None,
        typer.Option("--parallel", min=1, help="Local cells at a time.  [default: cores]"),
    ] = None,
    max_parallel: Annotated[
        list[str] | None,
        typer.Option(
            "--max-parallel",
            metavar="[KIND=]N",
            help="At most N cells at a time on this kind of machine, such as v4-32=2, or in all. "
            "May be repeated.",
        ),
    ] = None,
    first: Annotated[
        list[str] | None,
        typer.Option(
            "--run-first",
            metavar="PATTERN",
            help="Cells like these start before the others; patterns as in --only. May be "
            "repeated.",
        ),
    ] = None,
    only: Only = None,
    settings: Set = None,
    done_in: Annotated[
        str | None,
        typer.Option(
            "--skip-done-in",
            metavar="SNAPSHOT",
            help="Skip cells that are done in this snapshot; `pull --merge-from` joins both.",
        ),
    ] = None,
    address: Address = None,
    execution: ExecutionFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Runs all cells of a study that are not over yet. Run it again at any time to go on.

    Ctrl-C asks the cells to save what they have; a second one quits at once. Exit codes: 0 all
    cells are over, 1 some failed, 2 bad input, 130 interrupted.
    """
    from sweeps.cli import run as cli_run

    study = study_of(name, data, settings, only, execution)
    if done_in:
        left = cli_run.without_done(study, done_in)
        if left is None:
            print(f"{study.name}: all {len(study.cells)} cells are done in {done_in}")
            return 0
        study = left
    if dry_run:
        return cli_run.dry_run(study, root_of(root), first=first or [], as_json=as_json)
    return cli_run.run(
        study,
        root_of(root),
        parallel=parallel,
        max_parallel=max_parallel or [],
        first=first or [],
        address=address,
        as_json=as_json,
    )


def train(
    name: Name,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell id, or how it begins.")],
    root: Root = "runs",
    data: Data = None,
    settings: Set = None,
    execution: ExecutionFile = None,
) -> int:
    """Trains one cell in this process, without Ray. Exit codes as for `run`."""
    from sweeps.cli import run as cli_run

    study = study_of(name, data, settings, None, execution)
    return cli_run.train(study, study.cell(cell), root_of(root))
