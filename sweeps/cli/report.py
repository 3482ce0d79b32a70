"""`study report`: one HTML file about a study."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import (
    Json,
    Metric,
    Only,
    Root,
    Set,
    StudyName,
    local,
    root_of,
)
from sweeps.cli.recorded import note_unplanned, recorded_study, stated_in

if TYPE_CHECKING:
    from analysis.claims import Verdict

HEADLINES, MOST_LINES = 3, 4  # sentences on a terminal, and lines of each
WIDEST = 110  # characters of a line
_SCOPE = re.compile(r" \([^()]*; 95 % intervals[^()]*\)")  # of a sentence; the page has it


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
    figures: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            callback=local,
            help="Write figures and tables to DIR too, as `study figures` does.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a self-contained HTML report of a study.

    It holds question, verdicts, figures, tables and provenance, and loads nothing.
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
        about = stated_in(load_study(name), root)
        info = dataclasses.replace(
            info,
            question=about["question"],
            paper=about["paper"],
            assumptions=tuple(Assumption(**assumption) for assumption in about["assumptions"]),
            planned=tuple(where["planned"]),
            records=where["records"],
        )
    path = Path(out or f"{study_name}-report.html")
    written = write_report(path, root, info, metric=metric, figures=figures)
    inputs, stale = written.inputs, written.stale
    note_unplanned(inputs.cells, only)
    states, size = Counter(inputs.cells["status"]), path.stat().st_size
    if as_json:
        page = {"study": study_name, "file": str(path), "bytes": size, "cells": states}
        files = [file for one in written.figures for file in one.files]
        print(json.dumps({**page, "stale": stale, "figures": files}))
        return 1 if stale else 0
    print("\n".join(_summarise(inputs.verdicts)))
    counts = ", ".join(f"{n} {state}" for state, n in states.most_common()) or "no records"
    if figures is not None:
        print(f"{figures}  {len(written.figures)} figures and tables")
    print(f"{path}  {size / 1e6:.1f} MB, {len(inputs.cells)} cells: {counts}")
    for line in stale:
        print(f"study: {line}", file=sys.stderr)
    return 1 if stale else 0


def _summarise(verdicts: Sequence[Verdict]) -> list[str]:
    """How many claims hold; then of each section a contradicted claim, or the surest, a few."""
    from analysis.claims import OURS, count_verdicts

    papers = [v for v in verdicts if v.section != OURS]
    counts = ", ".join(f"{n} {kind}" for kind, n in count_verdicts(papers))
    clearest: dict[str, Verdict] = {}
    for verdict in sorted(papers, key=lambda v: (v.verdict != "contradicted", v.adjusted_p)):
        if verdict.verdict in ("reproduced", "contradicted"):
            clearest.setdefault(verdict.section, verdict)
    names = [v.name for v in clearest.values()][:HEADLINES]
    columns = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    lines = [f"claims of the paper: {counts}"]
    for verdict in (v for v in papers if v.name in names):
        sentence = _SCOPE.split(verdict.sentence)[0].rstrip(".")
        text = f"{verdict.verdict}: {verdict.name}. {sentence}."
        wrapper = textwrap.TextWrapper(columns, max_lines=MOST_LINES, placeholder=" ...")
        wrapper.initial_indent, wrapper.subsequent_indent = "- ", "  "
        lines += wrapper.wrap(text)
    return lines
