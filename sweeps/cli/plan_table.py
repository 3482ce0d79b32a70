"""`study plan`: what a study would take, and `--execution FILE`, which a plan writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.config.hardware import GIB
from study.planning import tpu_compile
from study.records.record import write_json
from sweeps.cli.table import table
from sweeps.planning import roofline
from sweeps.planning.calibrate import Calibration, compare_predictions, load_calibration
from sweeps.planning.fit_search import cache_dir
from sweeps.planning.plan import CellPlan, apply, execution_file, plan
from sweeps.runner.display import ProgressLine, duration
from sweeps.study import Study, StudyError, count_seen


def run(
    study: Study,
    *,
    slice_name: str | None,
    price: float | None,
    records: str | None,
    write: str | None,
    out: str | None,
    parallel: int,
    formula: bool,
    as_json: bool,
) -> int:
    """Plans the study; returns the exit code: 0 if every cell fits or may, 1 if one does not or
    its compiler broke off."""
    measured = None if records is None else load_calibration(records)
    with ProgressLine(sys.stderr) as steps:
        found = plan(
            study,
            slice_name=slice_name,
            calibration=measured,
            cache=cache_dir(),
            parallel=parallel,
            no_compile=formula,
            progress=steps,
        )
    rows = [item.row(price) for item in found]
    try:
        if write is not None:
            write_json(Path(write), execution_file(found))
        files = [] if out is None else _drawn(study, found, rows, measured, out)
    except OSError as error:
        raise StudyError(f"{error.filename or out or write}: {error.strerror or error}") from None
    if as_json:
        print(json.dumps({"study": study.name, "cells": rows, **_about(study, found)}, indent=1))
    else:
        print(_table(found, price))
        print(_totals(study, found, price))
        for line in _notes(found, formula, measured is not None):
            print(line)
        if write is not None:
            print(f"written: {write}; to use it: study run {study.name} --execution {write}")
        for file in files:
            print(file)
    return 1 if any(item.fits is False or item.compiler_crashed for item in found) else 0


def _drawn(
    study: Study,
    found: Sequence[CellPlan],
    rows: Sequence[dict[str, Any]],
    measured: Calibration | None,
    out: str,
) -> list[Path]:
    """CSV and figure of the plan, and of predicted against measured where there is both."""
    from analysis.figures import plan as plan_figures

    files = plan_figures.write_plan(rows, out, study.name, assumed=_assumed(found))
    if measured is not None:
        files += plan_figures.write_speed(compare_predictions(measured), out, study.name)
    return files


def executed(study: Study, path: str) -> Study:
    """`study` run as a file says that `study plan --save-execution` wrote.

    Raises:
      StudyError: no such file, no JSON, or one of another study.
    """
    try:
        chosen = json.loads(Path(path).read_text())
    except OSError as error:
        raise StudyError(f"--execution {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise StudyError(f"--execution {path}: no JSON ({error})") from None
    if not isinstance(chosen, dict) or not all(isinstance(v, dict) for v in chosen.values()):
        raise StudyError(
            f"--execution {path}: give a file that `study plan --save-execution` wrote"
        )
    return apply(study, chosen, path)


def _table(found: Sequence[CellPlan], price: float | None) -> str:
    head = ("cell", "slice", "steps", "examples", "pairs", "fits", "HBM GiB", "microbatch",
            "towers", "loss", "again", "step", "days", "chip-hours", "cost")  # fmt: skip
    rows = []
    for item in found:
        cell, way, flops = item.cell, item.setting, item.flops
        how = "all" if way.microbatch is None else str(way.microbatch)
        how += "+remat" * way.remat + "+fsdp" * (way.fsdp_mib is not None)
        rows.append(
            (
                cell.id,
                item.machine.name,
                f"{cell.steps:,}",
                f"{cell.examples:.3g}",
                f"{cell.steps * cell.pairs_per_step:.3g}",
                {True: "yes", False: "NO", None: "?"}[item.fits],
                f"{item.hbm_bytes / GIB:.1f}/{item.machine.chip.usable_bytes / GIB:.1f}",
                how,
                f"{flops.towers:.2e}",
                f"{flops.loss:.2e}",
                f"{flops.recompute:.2e}" if flops.recompute else "",
                _seconds(item.step_seconds),
                f"{item.days:.3g}",
                f"{item.chip_hours:.4g}",
                "" if price is None else f"{item.chip_hours * price:,.2f}",
            )
        )
    return table(head, rows, right=set(range(2, 15)) - {5, 7})


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _totals(study: Study, found: Sequence[CellPlan], price: float | None) -> str:
    hours = sum(item.chip_hours for item in found)
    cost = "" if price is None else f", cost {hours * price:,.2f}"
    return (
        f"{len(found)} cells, {sum(c.steps for c in study.cells):,} steps, "
        f"{sum(c.examples for c in study.cells):.4g} examples, "
        f"{sum(count_seen(c, 'pairs') for c in study.cells):.4g} pairs; "
        f"{sum(not i.fits and i.fits is not None for i in found)} do not fit; "
        f"{hours:,.0f} chip-hours, longest cell "
        f"{duration(max(i.days for i in found) * 86_400)}{cost}"
    )


def _about(study: Study, found: Sequence[CellPlan]) -> dict[str, Any]:
    labels = [
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
    mfu = {i.machine.chip.name: roofline.MFU[i.machine.chip.name] for i in found}
    return {"matched": labels, "assumed_mfu": mfu}


def _assumed(found: Sequence[CellPlan]) -> str:
    """What the times rest on, where they were not measured."""
    shares = {i.machine.chip.name: roofline.MFU[i.machine.chip.name] for i in found if i.time}
    told = ", ".join(f"{share:.0%} of the peak of {chip}" for chip, share in shares.items())
    return f"Times are estimates: {told} is assumed, measured by nobody." if told else ""


def _notes(found: Sequence[CellPlan], formula: bool, measured: bool) -> list[str]:
    """What the numbers rest on, one line each."""
    lines = []
    for item in found:
        if item.fits is False or item.compiler_crashed:
            verdict = "may not fit" if item.compiler_crashed else "does not fit"
            lines.append(f"{item.cell.id}: {verdict} {item.machine.name}: {item.verdict}")
    if (assumed := _assumed(found)) and measured:
        lines.append(f"{assumed} The records that --calibrate names are of other chips")
    elif assumed:
        lines.append(f"{assumed} --calibrate RECORDS replaces it")
    elif measured:
        lines.append("times rest on the records that --calibrate named")
    guessed = [item.machine for item in found if item.fits is None and not item.compiler_crashed]
    if guessed and (reason := tpu_compile.why_unavailable()) is not None:
        lines.append(f"memory is by formula: {reason}")
    elif any(machine.topology for machine in guessed) and formula:
        lines.append("memory is by formula; without --no-compile the steps are compiled")
    elif guessed:
        lines.append("memory is by formula for what is no TPU; --slice v4-8 compiles the steps")
    return lines
