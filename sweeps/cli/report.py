"""`study report`: one HTML file about a study."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import (
    Json,
    Metric,
    Only,
    Root,
    Set,
    StudyName,
    local,
    recorded_study,
    root_of,
)


def report(
    name: StudyName,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", callback=local, show_default="STUDY-report.html", help="Output file."
        ),
    ] = None,
    metric: Metric = None,
    finding: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Open with this text, in which each sentence names its claims."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a self-contained HTML report of a study.

    It holds question, verdicts, figures, tables and provenance, and loads nothing.

    Exit codes: 0 written, 1 written but a sentence of the finding no longer holds, 2 bad input.
    """
    from analysis.report import Assumption, StudyInfo, prose, write_report
    from sweeps.registry import load_study

    root = root_of(root)
    study_name, where = recorded_study(name, root, settings, only)
    shown = Path(name).name if name.endswith(".py") else study_name
    selection = [f"--only={each}" for each in only or []] + [f"--set={s}" for s in settings or []]
    shown = shlex.join([shown, *selection])
    info = StudyInfo(
        study=study_name,
        commands=(f"study run {shown}", f"study report {shown}"),
        finding=prose.read(finding) if finding else (),
    )
    if where:
        study = load_study(name)
        info = dataclasses.replace(
            info,
            question=study.question,
            paper=study.paper,
            assumptions=tuple(Assumption(a.name, a.value, a.reason) for a in study.assumptions),
            planned=tuple(where["planned"]),
            records=where["records"],
        )
    path = Path(out or f"{study_name}-report.html")
    inputs, stale = write_report(path, root, info, metric=metric)
    states, size = Counter(inputs.cells["status"]), path.stat().st_size
    if as_json:
        about = {"study": study_name, "file": str(path), "bytes": size, "cells": states}
        print(json.dumps({**about, "stale": stale}))
        return 1 if stale else 0
    counts = ", ".join(f"{n} {state}" for state, n in states.most_common()) or "no records"
    print(f"{path}  {size / 1e6:.1f} MB, {len(inputs.cells)} cells: {counts}")
    for line in stale:
        print(f"study: {line}", file=sys.stderr)
    return 1 if stale else 0
