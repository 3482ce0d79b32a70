"""`study report`: one HTML file of a study."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.claims import judge
from analysis.figures.base import Inputs
from analysis.report import Assumption, StudyInfo, prose, write
from sweeps.registry import load_study


def study_info(
    given: str, name: str, recorded: Mapping[str, Any], finding: str | None = None
) -> StudyInfo:
    """What the grid says, or of records without a grid here, only their name.

    Args:
      finding: a file of prose, see `analysis.report.prose`.
      given: the study on the command line, a name or a grid file.
      recorded: the cells of its grid ("planned") and the folder of their records.
    """
    shown = Path(given).name if given.endswith(".py") else name
    commands = (f"study run {shown}", f"study report {shown}")
    written = prose.read(finding) if finding else ()
    if not recorded:
        return StudyInfo(study=name, commands=commands, finding=written)
    study = load_study(given)
    return StudyInfo(
        study=name,
        question=study.question,
        paper=study.paper,
        assumptions=tuple(Assumption(a.name, a.value, a.reason) for a in study.assumptions),
        commands=commands,
        planned=tuple(recorded["planned"]),
        records=recorded["records"],
        finding=written,
    )


def report(of: StudyInfo, root: str, out: str | None, *, metric: str | None, as_json: bool) -> int:
    """Writes the file and says in one line what is in it.

    Returns: 1 where what is written about the study no longer agrees with its records, else 0.
    """
    path = Path(out or f"{of.study}-report.html")
    inputs = write(path, root, of, metric=metric)
    cells = inputs.cells
    changed = _stale(of, inputs)
    states = Counter(cells["status"])
    size = path.stat().st_size
    if as_json:
        told = {"study": of.study, "file": str(path), "bytes": size, "cells": states}
        print(json.dumps({**told, "stale": changed}))
        return int(bool(changed))
    said = ", ".join(f"{n} {state}" for state, n in states.most_common()) or "no records"
    print(f"{path}  {size / 1e6:.1f} MB, {len(cells)} cells: {said}")
    for line in changed:
        print(f"study: {line}", file=sys.stderr)
    return int(bool(changed))


def _stale(of: StudyInfo, inputs: Inputs) -> list[str]:
    if not of.finding:
        return []
    verdicts = judge(inputs.cells, metric=inputs.quality, read_rows=lambda: inputs.rows)
    return prose.stale(prose.with_verdicts(of.finding, verdicts))
