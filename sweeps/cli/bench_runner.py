"""`study bench sweep`, `claims` and `chaos`: what the runner costs, and what it survives."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sweeps.cli.options import Json, RecordRatio

START_SECONDS = 120.0  # assumed by `sweep`, from a free slice to a cell's first step

Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, show_default="cores", help="Local workers."),
]


def append_measurements(
    rows: Iterable[tuple[str, str, str, str]], *, machine: str | None = None
) -> None:
    """Appends rows to the table of ratios (`sweeps.bench.history`) and prints where it is."""
    from sweeps.bench.history import Measurement, append

    path = append((Measurement(*row) for row in rows), machine=machine)
    print(f"appended to {path}", file=sys.stderr)


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
    workers: Workers = None,
    record: RecordRatio = False,
    as_json: Json = False,
) -> int:
    """Measure what the runner adds to training time.

    Trains small cells on this machine, with a warm compile cache, and prints the wall time over
    the training time per core. Ray, Python and JAX cost about 8 s per sweep and 0.2 s per cell, so
    short cells look worse.

    Simulates a study on a pool of slices, whose workers claim cells as those of `study run` do, and
    prints the time over the least possible. Step times are the analytic estimates of `study plan`,
    and every cell takes two minutes to start.
    """
    values = {"simulated": _simulate(name, pool or ["v4-32=8"], quiet=as_json)}
    if cells:
        values["here"] = _measure_overhead(cells, examples, workers, quiet=as_json)
    if record:
        append_measurements(_sweep_rows(**values))
    if as_json:
        print(json.dumps(values, indent=1))
    return 0


def _sweep_rows(
    simulated: dict[str, Any], here: dict[str, Any] | None = None
) -> Iterable[tuple[str, str, str, str]]:
    pool = ", ".join(f"{n} {kind}" for kind, n in simulated["pool"].items())
    case = f"{simulated['study']} simulated on {pool}"
    yield "sweep", case, "time / least possible", f"{simulated['ratio']:.3f}"
    if here is not None:
        case = f"{here['cells']} cells of {here['examples']:,} examples, {here['parallel']} workers"
        yield "sweep", case, "wall time / training per core", f"{here['ratio']:.3f}"


def _simulate(name: str, pool: list[str], *, quiet: bool) -> dict[str, Any]:
    from sweeps.bench.claims_simulation import simulate
    from sweeps.planning.fit_search import cache_dir
    from sweeps.planning.plan import plan
    from sweeps.registry import load_study
    from sweeps.runner.claims import ranks
    from sweeps.runner.display import duration
    from sweeps.runner.machines import machines
    from sweeps.selection import select

    workers = _parse_pool(pool)
    only_type = next(iter(workers)) if len(workers) == 1 else None
    study = load_study(name)
    if only_type:
        study = select(study, settings=[f"execution.slice={json.dumps(only_type)}"])
    plans = plan(study, slice_name=only_type, cache=cache_dir(), no_compile=True)
    seconds = {p.cell.id: START_SECONDS + p.step_seconds * p.cell.steps for p in plans}
    simulated = simulate(study.cells, seconds, ranks(study), machines(study), workers)
    if not quiet:
        counts = ", ".join(f"{n} {kind}" for kind, n in workers.items())
        print(
            f"{study.name}: {len(study.cells)} cells on {counts}: {duration(simulated.seconds)}, "
            f"at best {duration(simulated.bound)}; ratio {simulated.ratio:.3f}"
        )
    return {
        "study": study.name,
        "cells": len(study.cells),
        "pool": workers,
        "makespan_s": simulated.seconds,
        "bound_s": simulated.bound,
        "ratio": simulated.ratio,
    }


def _parse_pool(texts: list[str]) -> dict[str, int]:
    from study.config.hardware import HardwareError
    from sweeps.runner.machines import parse_machine
    from sweeps.study import StudyError

    workers: dict[str, int] = {}
    for text in texts:
        name, _, count = text.rpartition("=")
        if not name or not count.isdigit() or int(count) < 1:
            raise StudyError(f"--pool {text}: give a type and a number of slices, such as v4-32=8")
        try:
            workers[parse_machine(name)] = int(count)
        except HardwareError as error:
            raise StudyError(f"--pool {text}: {error}") from None
    return workers


def _measure_overhead(
    cells: int, examples: int, workers: int | None, *, quiet: bool
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
        result = overhead(study, Path(folder), workers=workers or cores(), report=report)
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


def claims(
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Workers.")] = 100,
    cells: Annotated[int, typer.Option(metavar="N", min=1, help="Cells.")] = 1000,
    minutes: Annotated[float, typer.Option(min=0.1, help="Mean training time of a cell.")] = 10.0,
    lifetime: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS",
            min=0.1,
            show_default="unlimited",
            help="Mean time until a worker dies.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    record: RecordRatio = False,
    as_json: Json = False,
) -> int:
    """Simulate workers that claim cells from a bucket.

    Runs the claim code itself against an object store in memory, in virtual time: a request takes
    50 ms. Prints the time over the least possible, and the requests. 300 workers and 3,000 cells
    take minutes; the time grows with their product.
    """
    from sweeps.bench.claims_simulation import simulate_study
    from sweeps.runner.display import duration

    result = simulate_study(
        cells,
        workers,
        mean_s=60 * minutes,
        lifetime_s=math.inf if lifetime is None else 3600 * lifetime,
        seed=seed,
    )
    if record:
        case = f"{cells:,} cells of {minutes:g} min, {workers:,} workers"
        if lifetime is not None:
            case += f" that live {lifetime:g} h"
        append_measurements([("claims", case, "time / least possible", f"{result.ratio:.3f}")])
    if as_json:
        print(json.dumps(dataclasses.asdict(result) | {"ratio": result.ratio}, indent=1))
        return 0
    least, median, most = result.cells_per_worker
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in result.requests.items())
    print(
        f"{cells} cells, {workers} workers: {duration(result.seconds)}, at best "
        f"{duration(result.bound)}; ratio {result.ratio:.3f}\n"
        f"{result.deaths} workers died; {result.failed} cells failed; {result.taken_twice} were "
        f"trained by two at once; {least} to {most} cells a worker, median {median}\n"
        f"{result.requests_per_worker_minute:.1f} requests per worker and minute, at most "
        f"{result.peak:,} in a second ({kinds}); {result.lost_claims:,} claims were lost"
    )
    return 0


def chaos(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long to kill processes.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    workers: Workers = None,
    launch: Annotated[
        Literal["run", "work"],
        typer.Option(help="Start workers by `study run`, or each by `study work`, without Ray."),
    ] = "run",
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
            show_default="temporary, kept if records differ",
            help="New folder for the records; those of the disturbed runs may be in a bucket.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Kill a small study at random, then compare its records.

    Runs the study while its workers, hosts, Ray and its driver are killed, repeating the command
    each time, and then once undisturbed. Parameters must be equal bit for bit, and rows equal, none
    lost or repeated.
    """
    from study.config.host import cores
    from study.records.storage import is_bucket, resolve
    from sweeps.bench.chaos import chaos
    from sweeps.cli.options import root_of
    from sweeps.runner.display import duration
    from sweeps.runner.signals import Stop

    out = sys.stderr if as_json else sys.stdout
    records = None if root is None else resolve(root_of(root))
    in_bucket = records is not None and is_bucket(records)
    temporary = root is None or in_bucket
    folder = Path(tempfile.mkdtemp(prefix="study-chaos-") if temporary else str(root)).absolute()
    result = None
    try:
        with Stop() as stop:
            stop.raises = True
            result = chaos(
                folder,
                minutes=minutes,
                seed=seed,
                workers=workers or cores(),
                launch=launch,
                slice_name=slice_name,
                records=records if in_bucket else None,
                say=lambda text: print(text, file=out, flush=True),
            )
    finally:
        if temporary and (result is None or not result.differences):
            shutil.rmtree(folder, ignore_errors=True)
    for line in result.differences:
        print(line, file=out)
    if as_json:
        print(json.dumps(vars(result), indent=1))
        return 1 if result.differences else 0
    kills = ", ".join(f"{n} of {target}" for target, n in result.kills.items())
    count = len(result.differences)
    print(
        f"{result.kills.total()} kills ({kills}) and {result.starts} starts in "
        f"{duration(result.disturbed_s)}, {result.rounds} rounds; {result.cells} cells in "
        f"{result.attempts} attempts, {result.retries} retries: "
        + (f"{count} differences; the records are in {folder}" if count else "no difference")
    )
    return 1 if result.differences else 0
