"""`study claims`: test the paper's claims on records, or on the paper's own numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from analysis.claims import Verdict


def claims(
    name: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="A study.", autocompletion=complete_study)
    ] = None,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    metric: Metric = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Test the paper's tables, and its text against them.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=local,
            help="Show what became of the verdicts that --json wrote to FILE before, as Markdown.",
        ),
    ] = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> int:
    """Test the paper's claims on the records of a study.

    With --json prints a list of verdicts; with --paper an object of "verdicts" and "checks"; with
    --against a list of changes.
    """
    import analysis
    from sweeps.study import StudyError

    if paper == (name is not None):
        raise StudyError("give a STUDY, or --paper for the paper's own numbers, but not both")
    if name is not None:
        study, where = recorded_study(name, root_of(root), settings, only)
        inputs = analysis.figures.read_inputs(root_of(root), study, metric=metric, **where)
        verdicts = inputs.verdicts
        note_unplanned(inputs.cells, only)
        if against is not None:
            print(_changes(against, verdicts, as_json))
            return 0
        print(analysis.claims.to_json(verdicts) if as_json else _text(verdicts, verbose))
        return 0
    if metric or only or settings or against:
        raise StudyError("--paper takes no --metric, --only, --set or --against; leave them out")
    verdicts, checks = analysis.claims.judge_paper(), analysis.paper.check_text()
    if as_json:
        rows = json.loads(analysis.claims.to_json(verdicts))
        print(json.dumps({"verdicts": rows, "checks": [asdict(c) for c in checks]}, indent=1))
    else:
        print(f"{_text(verdicts, verbose)}\n\n{analysis.paper.format_checks(checks)}")
    return 0


def _changes(path: str, verdicts: Sequence[Verdict], as_json: bool) -> str:
    """The verdicts beside those in a file."""
    from analysis.claims.formatting import from_json
    from analysis.publish.compare import compare, format_changes
    from sweeps.study import StudyError

    try:
        before = from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"--against {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError):
        raise StudyError(f"--against {path}: not a file of `study claims --json`") from None
    changes = compare(before, verdicts)
    if as_json:
        return json.dumps([change._asdict() for change in changes], indent=1)
    return format_changes(changes)


def _text(verdicts: Sequence[Verdict], verbose: bool) -> str:
    """The claims that have cells, then one line for the others, or all of them in full."""
    from analysis.claims import OURS, format_verdicts

    without = [v for v in verdicts if v.verdict == "no data"]
    if verbose or not without:
        return format_verdicts(verdicts)
    text = format_verdicts(v for v in verdicts if v.verdict != "no data")
    ours = sum(v.section == OURS for v in without)
    return (
        f"{text}\nno cells for {len(without) - ours} claims of the paper and {ours} of ours "
        "(what each needs: --verbose)"
    )
