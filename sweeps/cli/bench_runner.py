"""`study bench sweep` and `chaos`: what the runner costs, and what it survives."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.cli.options import Json, local

START_SECONDS = 120.0  # assumed by `sweep`, from a free slice to a cell's first step

Parallel = Annotated[
    int | None,
    typer.Option("--parallel", metavar="N", min=1, show_default="cores", help="Cells at a time."),
]


def sweep(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help="The study to simulate.")
    ] = "table-8",
    pool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE=N",
            show_default="v4-32=8",
            help="N simulated slices of a type (repeatable).",
        ),
    ] = None,
    cells: Annotated[
        int, typer.Option(metavar="N", min=0, max=40, help="Cells to train; 0 for none.")
    ] = 40,
    examples: Annotated[
        int, typer.Option(metavar="N", min=2048, help="Examples per trained cell.")
    ] = 1_000_000,
    parallel: Parallel = None,
    as_json: Json = False,
) -> int:
    """Measure what the runner adds to training time.

    Trains small cells on this machine, with a warm compile cache, and prints the wall time over
    the training time per core. Ray costs about 9 s per sweep and 0.3 s per cell, so short cells
    look worse.

    Simulates a study on a pool of slices with the queue of `study run`, and prints the time over
    the least possible. Step times are the analytic estimates of `study plan`, and every cell takes
    two minutes to start.
    """
    values = {"simulated": _simulate(name, pool or ["v4-32=8"], quiet=as_json)}
    if cells:
        values["here"] = _measure_overhead(cells, examples, parallel, quiet=as_json)
    if as_json:
        print(json.dumps(values, indent=1))
    return 0


def _simulate(name: str, pool: list[str], *, quiet: bool) -> dict[str, Any]:
    from sweeps.planning.fit_search import cache_dir
    from sweeps.planning.plan import plan
    from sweeps.registry import load_study
    from sweeps.runner import cell_status
    from sweeps.runner.display import duration
    from sweeps.runner.placing import caps
    from sweeps.runner.simulate import simulate
    from sweeps.selection import select

    slices, _ = caps(pool)
    only_type = next(iter(slices)) if len(slices) == 1 else None
    study = load_study(name)
    if only_type:
        study = select(study, settings=[f"execution.slice={json.dumps(only_type)}"])
    plans = plan(study, slice_name=only_type, cache=cache_dir(), no_compile=True)
    seconds = {p.cell.id: START_SECONDS + p.step_seconds * p.cell.steps for p in plans}
    unstarted = cell_status.read(study, Path("/nonexistent"))
    simulated = simulate(study, unstarted, seconds, slices)
    if not quiet:
        counts = ", ".join(f"{n} {kind}" for kind, n in slices.items())
        print(
            f"{study.name}: {len(study.cells)} cells on {counts}: {duration(simulated.makespan)}, "
            f"at best {duration(simulated.bound)}; ratio {simulated.ratio:.3f}"
        )
    return {
        "study": study.name,
        "cells": len(study.cells),
        "pool": slices,
        "makespan_s": simulated.makespan,
        "bound_s": simulated.bound,
        "ratio": simulated.ratio,
    }


def _measure_overhead(
    cells: int, examples: int, parallel: int | None, *, quiet: bool
) -> dict[str, Any]:
    from study.config import Budget, replace
    from study.config.host import cores
    from sweeps.bench.cells import study as bench_study
    from sweeps.bench.overhead import overhead
    from sweeps.runner.display import duration, report_on

    report = report_on(sys.stderr if quiet else sys.stdout)
    study = bench_study()
    chosen = [replace(c, "budget", Budget(examples=examples)) for c in study.cells[:cells]]
    study = dataclasses.replace(study, cells=tuple(chosen))
    with tempfile.TemporaryDirectory(prefix="study-bench-") as folder:
        result = overhead(study, Path(folder), parallel=parallel or cores(), report=report)
    if not quiet:
        other = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in result.spent.items())
        print(
            f"{result.cells} cells of {examples:,} examples on {result.parallel} cores, warm: "
            f"{duration(result.seconds)}; training alone "
            f"{duration(result.train_seconds / result.parallel)} per core; "
            f"ratio {result.ratio:.3f} "
            f"(all cells together: training {result.train_seconds:.1f} s, {other})"
        )
    return dataclasses.asdict(result) | {"examples": examples, "ratio": result.ratio}


def chaos(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long to kill processes.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    parallel: Parallel = None,
    slice_name: Annotated[
        str | None,
        typer.Option(
            "--slice", metavar="TYPE", help="Run on fake slices, such as v4-16, and kill hosts."
        ),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            callback=local,
            show_default="temporary, kept if records differ",
            help="New folder for the records.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Kill a small study at random, then compare its records.

    Runs the study while its workers, hosts, Ray and its driver are killed, repeating the command
    each time, and then once undisturbed. Parameters must be equal bit for bit, and rows equal, none
    lost or repeated.

    Exit codes: 0 equal, 1 different (one line per difference), 2 bad input.
    """
    from study.config.host import cores
    from sweeps.bench.chaos import chaos
    from sweeps.runner.display import duration
    from sweeps.runner.signals import Stop

    out = sys.stderr if as_json else sys.stdout
    folder = Path(root or tempfile.mkdtemp(prefix="study-chaos-")).absolute()
    result = None
    try:
        with Stop() as stop:
            stop.raises = True
            result = chaos(
                folder,
                minutes=minutes,
                seed=seed,
                parallel=parallel or cores(),
                slice_name=slice_name,
                say=lambda text: print(text, file=out, flush=True),
            )
    finally:
        if root is None and (result is None or not result.differences):
            shutil.rmtree(folder, ignore_errors=True)
    for line in result.differences:
        print(line, file=out)
    if as_json:
        print(json.dumps(dataclasses.asdict(result), indent=1))
        return 1 if result.differences else 0
    kills = ", ".join(f"{n} of {target}" for target, n in result.kills.items())
    count = len(result.differences)
    print(
        f"{sum(result.kills.values())} kills ({kills}) and {result.starts} starts in "
        f"{duration(result.seconds[0])}, {result.rounds} rounds; {result.cells} cells in "
        f"{result.attempts} attempts: "
        + (f"{count} differences; the records are in {folder}" if count else "no difference")
    )
    return 1 if result.differences else 0
