"""`study figures`: draw figures and tables from records."""

from __future__ import annotations

import enum
import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import (
    Json,
    Metric,
    Only,
    Root,
    Set,
    Verbose,
    complete_study,
    local,
    root_of,
)
from sweeps.cli.recorded import note_unplanned, recorded_study

if TYPE_CHECKING:
    from analysis.figures import OutputFiles


class Width(enum.StrEnum):
    """How wide a picture is, see `analysis.figures.plot.style.PAGES`."""

    column = "column"
    text = "text"
    slide = "slide"


def figures(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY",
            show_default="all with records",
            help="Studies.",
            autocompletion=complete_study,
        ),
    ] = None,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", callback=local, help="Output directory.")
    ] = "figures",
    metric: Metric = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Draw the paper's printed numbers; needs no records.")
    ] = False,
    figure: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Draw only this one, such as fig_3 (repeatable)."),
    ] = None,
    width: Annotated[
        Width,
        typer.Option(help="For a column, across a page of text, or a slide (16:9)."),
    ] = Width.text,
    bare: Annotated[
        bool, typer.Option("--bare", help="Leave the short title out of the pictures.")
    ] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> int:
    """Draw every figure and table that the records allow.

    Writes NAME.png, NAME.pdf, the numbers as NAME.csv, and the caption as NAME.md and NAME.tex, not
    in the picture.
    """
    import analysis

    page: dict[str, Any] = {"width": width.value, "bare": bare}
    names, root = studies or [], root_of(root)
    page["only"] = chosen = figure or []
    if paper:
        if names or metric or only or settings:
            raise typer.BadParameter("--paper takes no study, --metric, --only or --set")
        drawn = [("paper", one) for one in analysis.figures.draw_paper(out, **page)]
    else:
        names = names or analysis.frame.studies(root)
        if not names:
            raise analysis.AnalysisError(f"no records in {root}; `study run STUDY` creates them")
        drawn = []
        for name in names:
            study, where = recorded_study(name, root, settings, only)
            inputs = analysis.figures.read_inputs(root, study, metric=metric, **where)
            note_unplanned(inputs.cells, only)
            files = analysis.figures.draw_inputs(inputs, study, out, **page)
            drawn += [(study, one) for one in files]
    if as_json:
        rows = [
            {"study": study, "figure": one.name, "files": one.files}
            | {"missing": list(one.missing), "skipped": one.skipped}
            for study, one in drawn
        ]
        print(json.dumps(rows, indent=1))
        return 0
    for study in dict.fromkeys(study for study, _ in drawn):
        print(_lines(study, [one for of, one in drawn if of == study], verbose or bool(chosen)))
    return 0


def _lines(study: str, outputs: list[OutputFiles], verbose: bool) -> str:
    """A line per figure drawn; one for those skipped, or one each."""
    lines = [one.line for one in outputs if one.skipped is None]
    reasons = {f"{study}-{one.name}": one.skipped for one in outputs if one.skipped is not None}
    if verbose:
        lines += [f"{name}: skipped, {reason}" for name, reason in reasons.items()]
    elif lines and reasons:
        lines.append(f"{study}: skipped {len(reasons)} others (why: --verbose)")
    elif reasons:
        counts = "; ".join(f"{n} as {why}" for why, n in Counter(reasons.values()).most_common())
        lines.append(f"{study}: drew nothing: {counts} (each: --verbose)")
    return "\n".join(lines)
