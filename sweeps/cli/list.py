"""`study list`: the studies, or the cells of one and the assumptions that they rest on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from study.config.cell import Cell, to_dict
from sweeps.cli.table import table
from sweeps.registry import builtin_studies, load_study
from sweeps.runner.display import duration
from sweeps.study import Study

# The only parts of a cell that a study does not vary in a table: shown in --json.
_HIDDEN = ("evals",)


def studies(*, as_json: bool) -> int:
    """All built-in studies, one line each."""
    found = [load_study(name) for name in builtin_studies()]
    if as_json:
        print(json.dumps([_summary(study) for study in found], indent=1))
        return 0
    rows = [
        (
            s.name,
            s.paper,
            str(len(s.cells)),
            short(sum(c.examples for c in s.cells)),
            f"{sum(_pairs(c) for c in s.cells):.1e}",
            s.hardware or _estimate(s),
            s.question,
        )
        for s in found
    ]
    head = ("study", "paper", "cells", "examples", "pairs", "takes", "question")
    print(table(head, rows, right={2, 3, 4}))
    return 0


def study(study: Study, *, as_json: bool) -> int:
    """One study: its cells, what they differ in, and its assumptions."""
    if as_json:
        cells = [_cell(study, cell) for cell in study.cells]
        print(json.dumps({**_summary(study), "cells": cells}, indent=1))
        return 0
    print(f"{study.name}: {study.question}")
    told = {
        "paper": study.paper,
        "hardware": study.hardware,
        "time": _estimate(study),
        "records": f"in <root>/{study.group}, beside those of other studies"
        if study.group != study.name
        else "",
    }
    print("".join(f"{key}: {text}\n" for key, text in told.items() if text))
    varied = differences(study.cells)
    rows = [
        (
            cell.id,
            f"{cell.steps:,}",
            short(cell.examples),
            f"{_pairs(cell):.1e}",
            study.execution_of(cell).slice or "",
            *(_shown(of.get(field)) for field in varied),
        )
        for cell, of in ((cell, _flat(to_dict(cell))) for cell in study.cells)
    ]
    head = ("cell", "steps", "examples", "pairs", "slice", *varied)
    print(table(head, rows, right={1, 2, 3}))
    print(f"{len(study.cells)} cells")
    if study.assumptions:
        print("\nassumptions, where the paper does not say:")
    for one in study.assumptions:
        print(f"- {one.name}: {one.value}. {one.reason}")
    return 0


def differences(cells: Sequence[Cell]) -> list[str]:
    """The fields that not all cells have alike, beside what an id and the first columns say."""
    flat = [_flat({k: v for k, v in to_dict(c).items() if k not in _HIDDEN}) for c in cells]
    fields = dict.fromkeys(field for of in flat for field in of)
    said = ("batch_size", "seed", "loss.kind", "budget.examples", "budget.pairs", "budget.steps")
    return [
        field
        for field in fields
        if field not in said and len({json.dumps(of.get(field)) for of in flat}) > 1
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
    seconds = _seconds(study)
    return {
        "study": study.name,
        "paper": study.paper,
        "question": study.question,
        "cells": len(study.cells),
        "examples": sum(cell.examples for cell in study.cells),
        "pairs": sum(_pairs(cell) for cell in study.cells),
        "paper_hardware": study.hardware or None,
        "core_seconds": None if seconds is None else round(seconds),
        "group": study.group,
        "assumptions": [asdict(one) for one in study.assumptions],
    }


def _cell(study: Study, cell: Cell) -> dict[str, Any]:
    return {
        "id": cell.id,
        "steps": cell.steps,
        "examples": cell.examples,
        "pairs": _pairs(cell),
        "slice": study.execution_of(cell).slice,
        "cell": to_dict(cell),
    }


def _pairs(cell: Cell) -> int:
    return cell.steps * cell.pairs_per_step


def _seconds(study: Study) -> float | None:
    return None if study.seconds is None else sum(map(study.seconds, study.cells))


def _estimate(study: Study) -> str:
    seconds = _seconds(study)
    return "" if seconds is None else f"about {duration(seconds)} of a CPU core"


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
