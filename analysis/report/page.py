"""The page: what it says in which order, and the template that says it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.claims import OURS, Verdict, count_verdicts, format_number, judge
from analysis.figures import FIGURES, TABLES
from analysis.figures.base import Inputs
from analysis.figures.plot.style import metric_label
from analysis.records.frame import NOT_STARTED, STATUSES
from analysis.report import prose
from analysis.report.pictures import pictures
from analysis.report.provenance import provenance
from analysis.report.study_info import StudyInfo
from analysis.report.tables import of_cells, of_unfinished, papers_tables

HERE = Path(__file__).parent
SAID = {"running-or-interrupted": "running or interrupted"}


def html(
    inputs: Inputs,
    stated: StudyInfo,
    *,
    figures: Mapping[str, Any] = FIGURES,
    written: Mapping[str, Any] = TABLES,
) -> str:
    """The whole page. It loads nothing and has no script.

    Args:
      figures, written: by name, modules of figures and of tables, see `analysis.figures`.
    """
    cells = inputs.cells
    verdicts = judge(cells, metric=inputs.quality, read_rows=lambda: inputs.rows)
    # Without cells these would show the paper's numbers alone.
    drawn = pictures(figures, inputs) if len(cells) else []
    listed = papers_tables(written, inputs) if len(cells) else []
    return _template().render(
        stated=stated,
        finding=prose.with_verdicts(stated.finding, verdicts),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        quality=" ".join(metric_label(inputs.quality).split()),
        states=_states(cells),
        finished=int((cells["status"] == "done").sum()) if len(cells) else 0,
        total=len(cells),
        kinds=count_verdicts(v for v in verdicts if v.section != OURS),
        kinds_of_ours=count_verdicts(
            v for v in verdicts if v.section == OURS and v.verdict != "no data"
        ),
        verdicts=[v for v in verdicts if v.verdict != "no data"],
        untested=[v for v in verdicts if v.verdict == "no data"],
        pictures=[p for p in drawn if not p.skipped],
        tables=[t for t in listed if not t.skipped],
        skipped=[(p.name, p.skipped) for p in drawn if p.skipped]
        + [(t.name, t.skipped) for t in listed if t.skipped],
        unfinished=of_unfinished(cells) if len(cells) else None,
        waiting=list(cells["id"][cells["status"] == NOT_STARTED]) if len(cells) else [],
        every_cell=of_cells(inputs) if len(cells) else None,
        provenance=provenance(cells),
    )


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = _interval
    environment.filters["number"] = format_number
    environment.filters["anchor"] = _anchor
    return environment.get_template("page.html")


def _states(cells: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Class name, words and number of cells of each state that there is."""
    counts: Counter[str] = Counter(cells["status"]) if len(cells) else Counter()
    known = [s for s in STATUSES if s in counts] + sorted({*counts} - {*STATUSES})
    return [(state.replace(" ", "-"), SAID.get(state, state), counts[state]) for state in known]


def _anchor(claim: str) -> str:
    """An id for the element that shows this claim."""
    return "claim-" + re.sub(r"[^a-z0-9]+", "-", claim.lower()).strip("-")


def _interval(verdict: Verdict) -> str:
    low, high = format_number(verdict.low), format_number(verdict.high)
    return f"{low} to {high}" if low and high else "none: one seed each"
