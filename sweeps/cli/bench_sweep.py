"""`study bench sweep`: what the runner adds to the training, and how well it fills slices."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

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
    cells: Annotated[
        int,
        typer.Option("--cells", min=0, max=40, help="Cells that are trained here; 0 for none."),
    ] = 40,
    examples: Annotated[
        int,
        typer.Option(
            "--examples",
            min=2048,
            help="Of each cell. The fewer, the more the start of Ray weighs.",
        ),
    ] = 1_000_000,
    parallel: Annotated[
        int | None,
        typer.Option("--parallel", min=1, help="Cells at a time.  [default: cores]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: JSON on standard output.")
    ] = False,
) -> int:
    """Small cells trained here, and a study on a pool of slices simulated, against the least time.

    Here: the wall time of forty cells against the sum of their training times over the cores,
    warm, which means that their programs have been compiled; Ray's start and end count, about
    9 s, and 0.3 s a cell, so short cells (--examples 150000) look worse. Simulated: the
    queue and the admission are those of `study run`; how long a step takes is `study plan`'s
    word, by formula, and every cell takes two minutes more to start.
    """
    values = {"simulated": simulated(name, pool or ["v4-32=8"], as_json=as_json)}
    if cells:
        values["here"] = here(cells, examples, parallel, as_json=as_json)
    if as_json:
        print(json.dumps(values, indent=1))
    return 0


def here(cells: int, examples: int, parallel: int | None, *, as_json: bool) -> dict[str, Any]:
    """Trains so many cells; prints what the runner added unless that is for a program."""
    from study.config.budget import Budget
    from study.config.cell import replace
    from study.config.host import cores
    from sweeps.bench.bench_cells import study
    from sweeps.bench.overhead import overhead
    from sweeps.runner.display import duration, report_on

    report = report_on(sys.stderr if as_json else sys.stdout)
    with TemporaryDirectory(prefix="study-bench-") as folder:
        whole = study()
        length = Budget(examples=examples)
        part = tuple(replace(cell, "budget", length) for cell in whole.cells[:cells])
        timed = dataclasses.replace(whole, cells=part)
        done = overhead(timed, Path(folder), parallel=parallel or cores(), report=report)
    if not as_json:
        spent = ", ".join(f"{what} {s:.1f} s" for what, s in done.spent.items())
        print(
            f"{done.cells} cells of {examples:,} examples on {done.parallel} cores, warm: "
            f"{duration(done.seconds)}; training alone "
            f"{duration(done.train_seconds / done.parallel)} a core; ratio {done.ratio:.3f} "
            f"(all cells together: training {done.train_seconds:.1f} s, {spent})"
        )
    return dataclasses.asdict(done) | {"examples": examples, "ratio": done.ratio}


def simulated(name: str, pool: list[str], *, as_json: bool) -> dict[str, Any]:
    """Simulates the study `name`; prints how it went unless that is for a program."""
    from sweeps.planning.fit_search import cache_dir
    from sweeps.planning.plan import plan
    from sweeps.registry import load_study
    from sweeps.runner import cell_status as ledger
    from sweeps.runner.display import duration
    from sweeps.runner.placing import caps
    from sweeps.runner.simulate import simulate
    from sweeps.selection import select

    slices, _ = caps(pool)
    kind = next(iter(slices))
    study = load_study(name)
    if len(slices) == 1:
        study = select(study, settings=[f"execution.slice={json.dumps(kind)}"])
    found = plan(
        study, slice_name=kind if len(slices) == 1 else None, cache=cache_dir(), no_compile=True
    )
    seconds = {p.cell.id: START + p.step_seconds * p.cell.steps for p in found}
    done = simulate(study, ledger.read(study, Path("/nonexistent")), seconds, slices)
    if not as_json:
        there = ", ".join(f"{n} {kind}" for kind, n in slices.items())
        print(
            f"{study.name}: {len(study.cells)} cells on {there}: {duration(done.makespan)}; no "
            f"order ends before {duration(done.bound)}; ratio {done.ratio:.3f}"
        )
    values: dict[str, Any] = {"study": study.name, "cells": len(study.cells), "pool": slices}
    return values | {"makespan_s": done.makespan, "bound_s": done.bound, "ratio": done.ratio}
