"""`study bench sweep`: what the runner adds to the training, and how well it fills slices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

START = 120.0  # seconds from a free slice to a cell's first step, taken for every cell


def sweep(
    name: Annotated[
        str, typer.Argument(metavar="[STUDY]", help="Whose cells are simulated.")
    ] = "table-8",
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", metavar="KIND=N", help="So many slices of a kind, such as v4-32=8."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: JSON on standard output.")
    ] = False,
) -> int:
    """A study on a pool of slices, simulated: the time it takes against the least it could.

    The queue and the admission are those of `study run`; how long a step takes is `study plan`'s
    word, by formula, and every cell takes two minutes more to start.
    """
    from sweeps import ledger
    from sweeps.grid import find
    from sweeps.placing import caps
    from sweeps.plan import plan
    from sweeps.report import duration
    from sweeps.search import folder
    from sweeps.select import select
    from sweeps.simulate import simulate

    slices, _ = caps(pool or ["v4-32=8"])
    kind = next(iter(slices))
    study = find(name)
    if len(slices) == 1:
        study = select(study, settings=[f"execution.slice={json.dumps(kind)}"])
    found = plan(study, slice_name=kind if len(slices) == 1 else None, cache=folder(), formula=True)
    seconds = {p.cell.id: START + p.step_seconds * p.cell.steps for p in found}
    done = simulate(study, ledger.read(study, Path("/nonexistent")), seconds, slices)
    if as_json:
        values = {"study": study.name, "cells": len(study.cells), "pool": slices}
        values |= {"makespan_s": done.makespan, "bound_s": done.bound, "ratio": done.ratio}
        print(json.dumps(values, indent=1))
        return 0
    there = ", ".join(f"{n} {kind}" for kind, n in slices.items())
    print(
        f"{study.name}: {len(study.cells)} cells on {there}: {duration(done.makespan)}; no order "
        f"ends before {duration(done.bound)}; ratio {done.ratio:.3f}"
    )
    return 0
