"""`study plan`: estimate what every cell of a study takes, without a TPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import Data, Json, Only, Set, StudyName, local, study_of

if TYPE_CHECKING:
    from sweeps.planning.plan import CellPlan
    from sweeps.study import Study


def plan(
    name: StudyName,
    slice_name: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="TYPE",
            show_default="each cell's own",
            help="Machine (v4-32, v6e-16x2, gpu:h100), or a TPU generation (v4) for its smallest "
            "slice that fits.",
        ),
    ] = None,
    data: Data = None,
    only: Only = None,
    settings: Set = None,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="PRICE", help="Price per chip-hour.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            callback=local,
            help="Use the speed of these records; --out then also draws predicted against "
            "measured.",
        ),
    ] = None,
    save_execution: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=local,
            help="Save microbatch, remat and slice per cell for `run --execution`.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", callback=local, help="Also write the plan as CSV and figure."),
    ] = None,
    parallel: Annotated[
        int, typer.Option(metavar="N", min=1, help="Programs compiled at a time.")
    ] = 2,
    no_compile: Annotated[
        bool,
        typer.Option(
            "--no-compile", help="Do not compile; use cached results or an analytic estimate."
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Estimate memory, FLOPs, time and cost per cell.

    Compiles the training step for the slice, and the evaluation if it may need more memory. A cell
    fits if training, saving and evaluation do. No TPU is needed.
    """
    from study.records.record import write_json
    from sweeps.planning.calibrate import compare_predictions, load_calibration
    from sweeps.planning.fit_search import cache_dir
    from sweeps.planning.plan import execution_file
    from sweeps.planning.plan import plan as plan_cells
    from sweeps.runner.display import ProgressLine
    from sweeps.study import StudyError

    study = study_of(name, data, settings, only)
    calibration = None if calibrate is None else load_calibration(calibrate)
    with ProgressLine() as progress:
        plans = plan_cells(
            study,
            slice_name=slice_name,
            calibration=calibration,
            cache=cache_dir(),
            parallel=parallel,
            no_compile=no_compile,
            progress=progress,
        )
    rows = [cell_plan.row(price) for cell_plan in plans]
    files: list[Path] = []
    try:
        if save_execution is not None:
            write_json(Path(save_execution), execution_file(plans))
        if out is not None:
            from analysis.figures import plan as figures

            files += figures.write_plan(rows, out, study.name, assumed=_assumed_speed(plans))
            if calibration is not None:
                files += figures.write_speed(compare_predictions(calibration), out, study.name)
    except OSError as error:
        path = error.filename or out or save_execution
        raise StudyError(f"{path}: {error.strerror or error}") from None
    if as_json:
        print(json.dumps({"study": study.name, "cells": rows, **_json(study, plans)}, indent=1))
    else:
        print(_table(plans, price))
        print(_totals(study, plans, price))
        for line in _notes(plans, no_compile, calibrated=calibration is not None):
            print(line)
        if save_execution is not None:
            print(f"to use the plan: study run {study.name} --execution {save_execution}")
        for file in files:
            print(file)
    return 1 if any(p.fits is False or p.compiler_crashed for p in plans) else 0


def _table(plans: Sequence[CellPlan], price: float | None) -> str:
    from study.config.hardware import GIB
    from sweeps.cli.table import table

    head = ("cell", "slice", "steps", "examples", "pairs", "fits", "HBM GiB", "microbatch",
            "tower FLOPs", "loss FLOPs", "recomputed", "step time", "days", "chip-hours",
            "cost")  # fmt: skip
    rows = []
    for p in plans:
        cell, flops = p.cell, p.flops
        microbatch = "all" if p.setting.microbatch is None else str(p.setting.microbatch)
        microbatch += "+remat" * (p.setting.remat is not None)
        microbatch += "+fsdp" * (p.setting.fsdp_min_mib is not None)
        seconds = p.step_seconds
        rows.append(
            (
                cell.id,
                p.machine.name,
                f"{cell.steps:,}",
                f"{cell.examples:.3g}",
                f"{cell.pairs_seen(cell.steps):.3g}",
                {True: "yes", False: "NO", None: "?"}[p.fits],
                f"{p.hbm_bytes / GIB:.1f}/{p.machine.chip.usable_bytes / GIB:.1f}",
                microbatch,
                f"{flops.towers:.2e}",
                f"{flops.loss:.2e}",
                f"{flops.recompute:.2e}" if flops.recompute else "",
                f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms",
                f"{p.days:.3g}",
                f"{p.chip_hours:.4g}",
                "" if price is None else f"{p.chip_hours * price:,.2f}",
            )
        )
    return table(head, rows, right=set(range(2, 15)) - {5, 7})


def _totals(study: Study, plans: Sequence[CellPlan], price: float | None) -> str:
    from sweeps.runner.display import duration
    from sweeps.study import count_seen

    hours = sum(p.chip_hours for p in plans)
    cost = "" if price is None else f", cost {hours * price:,.2f}"
    return (
        f"{len(plans)} cells, {sum(c.steps for c in study.cells):,} steps, "
        f"{sum(c.examples for c in study.cells):.4g} examples, "
        f"{sum(count_seen(c, 'pairs') for c in study.cells):.4g} pairs; "
        f"{sum(p.fits is False for p in plans)} do not fit; {hours:,.0f} chip-hours, longest cell "
        f"{duration(max(p.days for p in plans) * 86_400)}{cost}"
    )


def _json(study: Study, plans: Sequence[CellPlan]) -> dict[str, Any]:
    from sweeps.planning import roofline
    from sweeps.study import count_seen

    matched = [
        {
            "by": label.by,
            "cells": [
                {
                    "id": c.id,
                    "steps": c.steps,
                    "examples": c.examples,
                    "pairs": count_seen(c, "pairs"),
                }
                for c in label.cells
            ],
        }
        for label in study.matched
    ]
    mfu = {p.machine.chip.name: roofline.MFU[p.machine.chip.name] for p in plans}
    return {"matched": matched, "assumed_mfu": mfu}


def _assumed_speed(plans: Sequence[CellPlan]) -> str:
    """Names the assumption behind times that were not measured; "" if all were."""
    from sweeps.planning import roofline

    mfu = {p.machine.chip.name: roofline.MFU[p.machine.chip.name] for p in plans if p.time}
    shares = ", ".join(f"{share:.0%} of peak on {chip}" for chip, share in mfu.items())
    return f"Times are estimates that assume {shares}" if mfu else ""


def _notes(plans: Sequence[CellPlan], no_compile: bool, *, calibrated: bool) -> list[str]:
    """Lines on the cells that do not fit, and on where times and memory come from."""
    from study.planning import tpu_compile

    lines = []
    for p in plans:
        if p.fits is False or p.compiler_crashed:
            verdict = "may not fit" if p.compiler_crashed else "does not fit"
            lines.append(f"{p.cell.id}: {verdict} {p.machine.name}: {p.verdict}")
    if assumed := _assumed_speed(plans):
        fix = "the records of --calibrate are of other chips" if calibrated else "see --calibrate"
        lines.append(f"{assumed}; {fix}")
    elif calibrated:
        lines.append("times are calibrated by the records of --calibrate")
    estimated = [p.machine for p in plans if p.fits is None and not p.compiler_crashed]
    if estimated and (reason := tpu_compile.why_unavailable()) is not None:
        lines.append(f"memory is an analytic estimate: {reason}")
    elif any(machine.topology for machine in estimated) and no_compile:
        lines.append("memory is an analytic estimate; leave out --no-compile to compile the steps")
    elif estimated:
        lines.append("memory is an analytic estimate off TPU; --slice v4-8 compiles the steps")
    return lines
