"""`study figures`: draw figures and tables from records."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sweeps.cli.options import Json, Metric, Root, complete_study, local, recorded_study, root_of


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
    as_json: Json = False,
) -> int:
    """Draw every figure and table that the records allow.

    Writes a PNG, a PDF and a CSV for each, and lists what is missing for the others.
    """
    import analysis

    names, only, root = studies or [], figure or [], root_of(root)
    if paper:
        if names or metric:
            raise typer.BadParameter("--paper takes no study and no metric")
        drawn = [("paper", one) for one in analysis.figures.draw_paper(out, only=only)]
    else:
        names = names or analysis.frame.studies(root)
        if not names:
            raise analysis.AnalysisError(f"no records in {root}; `study run STUDY` creates them")
        drawn = []
        for name in names:
            study, where = recorded_study(name, root)
            files = analysis.figures.draw_all(root, study, out, metric=metric, only=only, **where)
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
