"""`study plan` on the command line; its body is in `sweeps.cli.plan_table`."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.options import Data, Json, Name, Only, Set, local, study_of

EXAMPLE = "Example: study plan table-8 --slice v4-32 --save-execution v4-32.json"


def plan(
    name: Name,
    slice_name: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="SLICE",
            help="On this machine (v4-32, v6e-16x2, gpu:h100), or on the smallest slice of a "
            "generation (v4) that fits.  [default: each cell's own]",
        ),
    ] = None,
    data: Data = None,
    only: Only = None,
    settings: Set = None,
    price: Annotated[
        float | None, typer.Option("--price", min=0, metavar="PRICE", help="Of a chip-hour.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="DIR",
            callback=local,
            help="Records whose speed replaces the assumed one; --out then also draws predicted "
            "against measured.",
        ),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--save-execution",
            metavar="FILE",
            callback=local,
            help="How cells run, for `run --execution FILE`.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", callback=local, help="CSV and figure of the plan."),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, help="Programs compiled at a time.")
    ] = 2,
    formula: Annotated[
        bool,
        typer.Option(
            "--no-compile", help="Compile nothing: what is known, else memory by formula."
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """What a study would take: fit, memory, FLOPs, days and cost of every cell, and no TPU needed.

    The very step that `train` runs is compiled for the slice, and the evaluation where it may need
    more; a cell fits when training, saving and evaluation do. Exit codes: 0 all cells fit, 1 one
    does not or its compiler broke off, 2 bad input.
    """
    from sweeps.cli import plan_table as plan_report

    return plan_report.run(
        study_of(name, data, settings, only),
        slice_name=slice_name,
        price=price,
        records=calibrate,
        write=write,
        out=out,
        parallel=parallel,
        formula=formula,
        as_json=as_json,
    )
