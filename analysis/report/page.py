"""The HTML page of a study, from its grid and its records."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.claims import CLAIMS, OURS, Verdict, count_verdicts, format_number, format_p
from analysis.errors import AnalysisError
from analysis.figures import FIGURES, TABLES
from analysis.figures.base import Inputs, Plot, read_inputs
from analysis.figures.figure_io import OutputFiles, write_output, writing_to
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import metric_label
from analysis.figures.tables.table import PaperTable, to_html
from analysis.records.frame import NOT_STARTED, STATUSES
from analysis.report import prose
from analysis.report.contents import (
    describe_cells,
    interrupted_cells,
    make_picture,
    unfinished_cells,
)
from analysis.report.prose import Block, Citation
from analysis.report.provenance import provenance

HERE = Path(__file__).parent
VERDICTS = "verdicts"  # the figure of all verdicts
STATUS_NAMES = {"running-or-interrupted": "running or interrupted"}


class Assumption(NamedTuple):
    """A setting that the paper does not state, the value chosen, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StudyInfo:
    """What a grid states and no record holds, as plain values: no grid is imported here.

    Attributes:
      study: its name.
      question: one line.
      paper: the figure, table or section of the paper that it belongs to.
      assumptions: settings that the paper does not state.
      commands: what to type to get these records and this page, in order.
      planned, records: the grid's cells and the folder that they share, see `frame.cells`.
      finding: what was written about it, see `analysis.report.prose`.
    """

    study: str
    question: str = ""
    paper: str = ""
    assumptions: tuple[Assumption, ...] = ()
    commands: tuple[str, ...] = ()
    planned: tuple[Mapping[str, Any], ...] | None = None
    records: str | None = None
    finding: tuple[Block, ...] = ()


class Written(NamedTuple):
    """What a report was made from, and what was written besides the page.

    Attributes:
      stale: a line for each sentence of the finding that these records do not bear out.
      figures: the files of each figure and table, where they were asked for.
    """

    inputs: Inputs
    stale: list[str]
    figures: list[OutputFiles]


def write_report(
    path: str | Path,
    root: str | Path,
    info: StudyInfo,
    *,
    metric: str | None = None,
    figures: str | Path | None = None,
) -> Written:
    """Writes the page, the whole file or nothing.

    Args:
      figures: a folder for the figures and tables as files, as `figures.draw_all` writes them.

    Raises:
      AnalysisError: no such root or study, or a file cannot be written.
    """
    inputs = read_inputs(
        root, info.study, metric=metric, planned=info.planned, records=info.records
    )
    files: list[OutputFiles] = []
    if figures is None:
        page = render_page(inputs, info, inputs.verdicts)
    else:
        stem = str(Path(figures) / info.study)

        def save(name: str, table: pd.DataFrame, fig: StudyFigure | None) -> None:
            files.append(write_output(name, table, fig, Path(f"{stem}-{name}")))

        with writing_to(Path(figures)):
            page = render_page(inputs, info, inputs.verdicts, save=save)
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise AnalysisError(
            f"cannot write {path}: {error.strerror or error}; choose another --out"
        ) from error
    stale = prose.stale(prose.with_verdicts(info.finding, inputs.verdicts))
    return Written(inputs, stale, files)


def render_page(
    inputs: Inputs,
    info: StudyInfo,
    verdicts: Sequence[Verdict],
    *,
    figures: Mapping[str, Plot] = FIGURES,
    tables: Mapping[str, PaperTable] = TABLES,
    save: Callable[[str, pd.DataFrame, StudyFigure | None], None] = lambda name, table, fig: None,
) -> str:
    """The whole page as HTML. It loads nothing; its one script only hides, sorts and zooms.

    Args:
      save: takes name, numbers and, of a figure, the drawing of all that is shown.
    """
    cells = inputs.cells
    pictures, fragments, skipped = [], [], []
    if len(cells):  # without cells these would show the paper's numbers alone
        for plot in figures.values():
            numbers, reason = plot.numbers(inputs)
            if reason:
                skipped.append((plot.name, reason))
            else:
                keep = functools.partial(save, plot.name, numbers)
                pictures.append(make_picture(plot, numbers, keep))
        for table in tables.values():
            numbers, reason = table.numbers(inputs)
            if reason:
                skipped.append((table.name, reason))
            else:
                save(table.name, numbers, None)
                fragments.append((numbers.attrs["title"], to_html(numbers, table.name)))
    drawn = {picture.name: picture for picture in pictures}
    forest = drawn.pop(VERDICTS, None)  # it opens the verdicts
    shown_by = {claim.name: claim.figure for claim in CLAIMS if claim.figure in drawn}
    tested = [v for v in verdicts if v.verdict != "no data"]
    marks = {v.name: f"v{number:02}" for number, v in enumerate(tested, 1) if v.evidence}
    verdicts_of: dict[str, list[tuple[str, str]]] = {cell: [] for cell in cells.get("id", ())}
    for verdict in tested:
        for cell in verdict.evidence:
            verdicts_of[cell].append((marks[verdict.name], verdict.name))
    script = "\n" + (HERE / "page.js").read_text(encoding="utf-8")
    return _template().render(
        info=info,
        finding=prose.with_verdicts(info.finding, verdicts),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        quality=" ".join(metric_label(inputs.quality).split()),
        states=_count_states(cells),
        finished=int((cells["status"] == "done").sum()) if len(cells) else 0,
        total=len(cells),
        counts=count_verdicts(v for v in verdicts if v.section != OURS),
        counts_of_ours=count_verdicts(
            v for v in verdicts if v.section == OURS and v.verdict != "no data"
        ),
        verdicts=tested,
        figure_of={claim: drawn[figure] for claim, figure in shown_by.items()},
        claims_of={name: [v for v in tested if shown_by.get(v.name) == name] for name in drawn},
        marks=marks,
        verdicts_of=verdicts_of if marks else {},
        untested=[v for v in verdicts if v.verdict == "no data"],
        forest=forest,
        pictures=list(drawn.values()),
        tables=fragments,
        skipped=skipped,
        unfinished=unfinished_cells(cells) if len(cells) else None,
        interrupted=interrupted_cells(cells) if len(cells) else None,
        waiting=list(cells["id"][cells["status"] == NOT_STARTED]) if len(cells) else [],
        every_cell=describe_cells(inputs) if len(cells) else None,
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
    environment.filters["interval"] = _format_interval
    environment.filters["number"] = format_number
    environment.filters["p_value"] = format_p
    environment.filters["outcome"] = _name_outcome
    environment.filters["anchor"] = lambda claim: (
        "claim-" + re.sub(r"[^a-z0-9]+", "-", claim.lower()).strip("-")
    )
    return environment.get_template("page.html")


def _count_states(cells: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Class name, words and number of cells of each state that there is."""
    counts: Counter[str] = Counter(cells["status"]) if len(cells) else Counter()
    known = [s for s in STATUSES if s in counts] + sorted({*counts} - {*STATUSES})
    return [(s.replace(" ", "-"), STATUS_NAMES.get(s, s), counts[s]) for s in known]


def _name_outcome(citation: Citation) -> str:
    """The verdict beside a true sentence: "contradicted" would read as if the sentence were."""
    verdict = citation.verdict
    if citation.quoted == "contradicted" and verdict and verdict.section != OURS:
        return "the paper says otherwise"
    return citation.quoted


def _format_interval(verdict: Verdict) -> str:
    low, high = format_number(verdict.low), format_number(verdict.high)
    return f"{low} to {high}" if low and high else "none: one seed each"
