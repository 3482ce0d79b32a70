"""`study claims`: test the paper's claims on records, or on the paper's own numbers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from sweeps.cli.options import Json, Metric, Root, complete_study, recorded_study, root_of


def claims(
    name: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="A study.", autocompletion=complete_study)
    ] = None,
    root: Root = "runs",
    metric: Metric = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Test the paper's tables, and its text against them.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Test the paper's claims on the records of a study.

    With --json prints a list of verdicts; with --paper an object of "verdicts" and "checks".
    """
    import analysis
    from sweeps.study import StudyError

    if paper == (name is not None):
        raise StudyError("give a STUDY, or --paper for the paper's own numbers, but not both")
    if name is not None:
        study, where = recorded_study(name, root_of(root))
        options = {**where, **({"metric": metric} if metric else {})}
        verdicts = analysis.claims.judge_study(root_of(root), study, **options)
        format_ = analysis.claims.to_json if as_json else analysis.claims.format_verdicts
        print(format_(verdicts))
        return 0
    if metric:
        raise StudyError("--paper takes no --metric; leave it out")
    verdicts, checks = analysis.claims.judge_paper(), analysis.paper.check_text()
    if as_json:
        rows = json.loads(analysis.claims.to_json(verdicts))
        print(json.dumps({"verdicts": rows, "checks": [asdict(c) for c in checks]}, indent=1))
    else:
        print(
            f"{analysis.claims.format_verdicts(verdicts)}\n\n{analysis.paper.format_checks(checks)}"
        )
    return 0
