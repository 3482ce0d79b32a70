"""The finished cells of a study by quality, those that differ in their seed alone as one.

>>> rank("runs", "glyphs").rows[0]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.records import frame
from analysis.select.fields import (
    check_metric,
    evaluated,
    row_keys,
    same_fields,
    usual_quality,
    with_fields,
)

ALWAYS = ("batch_size", "loss.kind", "optimizer.learning_rate", "examples")


@dataclass(frozen=True, kw_only=True)
class Board:
    """A leaderboard.

    Attributes:
      metric: the column that it is ranked by.
      rows: the best first, each with "mean", "values" and "cells" by seed, and "fields": batch
        size, loss, rate, examples and every other field in which the ranked cells differ.
    """

    metric: str
    rows: list[dict[str, Any]]


def rank(
    root: str | Path,
    study: str,
    *,
    metric: str | None = None,
    by: Sequence[str] = (),
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> Board:
    """Ranks the finished cells by the mean of their metric over seeds.

    Args:
      metric: a column of `frame.cells`, better when lower if it ends in "loss". By default the
        only evaluation that the cells ended with, or `usual_quality`.
      by: fields; of the cells with equal values of these the best is kept.
      planned, records: see `frame.cells`.

    Raises:
      AnalysisError: no such root, study or field, or no cell has ended with the metric.
    """
    cells = frame.cells(root, study, planned=planned, records=records)
    done = cells[cells["status"] == "done"]
    if metric is None:
        measured = evaluated(done)
        metric = measured[0] if len(measured) == 1 else usual_quality(done)
    check_metric(done, metric, study)
    done = with_fields(done[done[metric].notna()]).sort_values("seed", kind="stable")
    fields = same_fields(done, [])
    if unknown := [field for field in by if field not in (*fields, *ALWAYS)]:
        raise AnalysisError(
            f"no field {', '.join(unknown)}; fields are {', '.join(dict.fromkeys(fields))}"
        )
    varying = [
        field
        for field in fields
        if not field.startswith("budget.") and done[field].astype(str).nunique() > 1
    ]
    shown = list(dict.fromkeys([*ALWAYS, *varying, *by]))
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for key, values, cell, value in zip(
        row_keys(done, fields),
        row_keys(done, shown),
        done["id"],
        done[metric].astype(float),
        strict=True,
    ):
        about = dict(zip(shown, map(_plain, values), strict=True))
        row = groups.setdefault(key, {"fields": about, "values": [], "cells": []})
        row["values"].append(value)
        row["cells"].append(cell)
    rows = [{"mean": sum(r["values"]) / len(r["values"]), **r} for r in groups.values()]
    rows.sort(key=lambda row: row["mean"], reverse=not metric.endswith("loss"))
    if by:
        best: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in rows:
            best.setdefault(tuple(row["fields"][field] for field in by), row)
        rows = list(best.values())
    return Board(metric=metric, rows=rows)


def _plain(value: Any) -> Any:
    """As a number of Python, a whole one where it is whole."""
    if isinstance(value, bool | str) or value is None:
        return value
    return int(value) if float(value).is_integer() else float(value)
