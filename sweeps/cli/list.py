"""`study list`: the studies, or one study's cells and assumptions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import Json, Only, Set, complete_study, study_of
from sweeps.cli.table import table

if TYPE_CHECKING:
    from study.config import Cell
    from sweeps.study import Study


def list_studies(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY",
            show_default="all studies",
            help="Show this study's cells and assumptions.",
            autocompletion=complete_study,
        ),
    ] = None,
    only: Only = None,
    settings: Set = None,
    as_json: Json = False,
) -> int:
    """List the studies, or the cells of one."""
    from sweeps.registry import builtin_studies, load_study

    if name is not None:
        return show_study(study_of(name, None, settings, only), as_json=as_json)
    studies = [load_study(name) for name in builtin_studies()]
    if as_json:
        print(json.dumps([_summary(study) for study in studies], indent=1))
        return 0
    rows = [
        (
            s.name,
            s.paper,
            str(len(s.cells)),
            short(sum(c.examples for c in s.cells)),
            f"{sum(c.pairs_seen(c.steps) for c in s.cells):.1e}",
            s.hardware or _time(s),
            s.question,
        )
        for s in studies
    ]
    head = ("study", "paper", "cells", "examples", "pairs", "takes", "question")
    print(table(head, rows, right={2, 3, 4}))
    return 0


def show_study(study: Study, *, as_json: bool) -> int:
    """Prints the study's cells with the fields in which they differ, and its assumptions."""
    from study.config import to_dict
    from sweeps.study import flatten

    if as_json:
        cells = [
            {
                "id": cell.id,
                "steps": cell.steps,
                "examples": cell.examples,
                "pairs": cell.pairs_seen(cell.steps),
                "slice": study.execution_of(cell).slice,
                "cell": to_dict(cell),
            }
            for cell in study.cells
        ]
        print(json.dumps({**_summary(study), "cells": cells}, indent=1))
        return 0
    print(f"{study.name}: {study.question}")
    shared = f"in ROOT/{study.group}, with those of other studies"
    about = {
        "paper": study.paper,
        "hardware": study.hardware,
        "time": _time(study),
        "records": shared if study.group != study.name else "",
    }
    print("".join(f"{key}: {text}\n" for key, text in about.items() if text))
    varied = differences(study.cells)
    rows = []
    for cell in study.cells:
        fields = flatten(to_dict(cell))
        rows.append(
            (
                cell.id,
                f"{cell.steps:,}",
                short(cell.examples),
                f"{cell.pairs_seen(cell.steps):.1e}",
                study.execution_of(cell).slice or "",
                *(_format(fields.get(path)) for path in varied),
            )
        )
    print(table(("cell", "steps", "examples", "pairs", "slice", *varied), rows, right={1, 2, 3}))
    print(f"{len(study.cells)} cells")
    if study.assumptions:
        print("\nassumptions where the paper is silent:")
    for assumption in study.assumptions:
        print(f"- {assumption.name}: {assumption.value}. {assumption.reason}")
    return 0


def differences(cells: Sequence[Cell]) -> list[str]:
    """Dotted paths of the fields in which cells differ, apart from those in other columns."""
    from study.config import to_dict
    from sweeps.study import flatten

    in_columns = {
        *("batch_size", "seed", "loss.kind"),
        *("budget.examples", "budget.pairs", "budget.steps"),
    }
    flat = [flatten({k: v for k, v in to_dict(cell).items() if k != "evals"}) for cell in cells]
    return [
        path
        for path in dict.fromkeys(path for fields in flat for path in fields)
        if path not in in_columns and len({json.dumps(fields.get(path)) for fields in flat}) > 1
    ]


def short(count: int) -> str:
    """A count in at most five characters.

    >>> short(18_000_000_000), short(450_000_000), short(900)
    ('18B', '450M', '900')
    """
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}" if count < 1000 * unit else f"{count // unit}{name}"
    return str(count)


def _summary(study: Study) -> dict[str, Any]:
    seconds = None if study.seconds is None else sum(map(study.seconds, study.cells))
    return {
        "study": study.name,
        "paper": study.paper,
        "question": study.question,
        "cells": len(study.cells),
        "examples": sum(cell.examples for cell in study.cells),
        "pairs": sum(cell.pairs_seen(cell.steps) for cell in study.cells),
        "paper_hardware": study.hardware or None,
        "core_seconds": None if seconds is None else round(seconds),
        "group": study.group,
        "assumptions": [asdict(assumption) for assumption in study.assumptions],
    }


def _time(study: Study) -> str:
    from sweeps.runner.display import duration

    if study.seconds is None:
        return ""
    return f"about {duration(sum(map(study.seconds, study.cells)))} of one CPU core"


def _format(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
