"""`study advise`: which batch size for how many examples."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sweeps.cli.options import Json, Metric, Root, complete_study, root_of
from sweeps.cli.recorded import recorded_study


def advise(
    examples: Annotated[
        float, typer.Option(min=1, metavar="COUNT", help="Examples seen, such as 3e9.")
    ],
    study: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Learn from the records of a study.",
            autocompletion=complete_study,
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            show_default="table-8, unless a study is named",
            help="Learn from the paper's table-8 (SigLiT) or table-5 (from scratch).",
        ),
    ] = None,
    loss: Annotated[
        Literal["sigmoid", "softmax"], typer.Option(help="The loss to train with.")
    ] = "sigmoid",
    root: Root = "runs",
    metric: Metric = None,
    as_json: Json = False,
) -> int:
    """Advise on the batch size for a number of examples.

    Fits error over examples and batch size, and names the smallest batch size that is as good as
    the best, with its interval and what of it is extrapolated.
    """
    from analysis import advice
    from sweeps.study import StudyError

    if study is None:
        if metric:
            raise StudyError("--metric needs --study; the paper's tables have one metric")
        found = advice.advise_paper(paper or "table-8", examples, loss=loss)
    elif paper is None:
        root = root_of(root)
        name, where = recorded_study(study, root)
        options = {**where, **({"metric": metric} if metric else {})}
        found = advice.advise_study(root, name, examples, loss=loss, **options)
    else:
        raise StudyError("give --study or --paper, but not both")
    print(advice.to_json(found) if as_json else advice.format_advice(found))
    return 0
