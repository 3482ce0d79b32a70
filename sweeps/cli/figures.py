"""`study figures`: draw figures and tables from records."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any

import typer

from sweeps.cli.options import Json, Metric, Root, complete_study, local, recorded_study, root_of


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
    as_json: Json = False,
) -> int:
    """Draw every figure and table that the records allow.

    Writes NAME.png, NAME.pdf, the numbers as NAME.csv, and the caption as NAME.md and NAME.tex, not
    in the picture. Lists what is missing for the others.
    """
    import analysis

    page: dict[str, Any] = {"width": width.value, "bare": bare}
    names, only, root = studies or [], figure or [], root_of(root)
    if paper:
        if names or metric:
            raise typer.BadParameter("--paper takes no study and no metric")
        drawn = [("paper", one) for one in analysis.figures.draw_paper(out, only=only, **page)]
    else:
        names = names or analysis.frame.studies(root)
        if not names:
            raise analysis.AnalysisError(f"no records in {root}; `study run STUDY` creates them")
        drawn = []
        for name in names:
            study, where = recorded_study(name, root)
            files = analysis.figures.draw_all(
                root, study, out, metric=metric, only=only, **page, **where
            )
            drawn += [(study, one) for one in files]
    if as_json:
        rows = [
            {"study": study, "figure": one.name, "files": one.files}
            | {"missing": list(one.missing), "skipped": one.skipped}
            for study, one in drawn
        ]
        print(json.dumps(rows, indent=1))
        return 0
    for study, one in drawn:
        print(one.line if paper or one.skipped is None else f"{study}-{one.line}")
    return 0
