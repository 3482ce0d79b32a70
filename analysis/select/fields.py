"""Cells that differ in nothing but named fields, chosen by their fields, never by their names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.records.record import COLUMNS, FIELDS
from analysis.records.scores import Score, read_scores

TOP1 = "eval/zero_shot/test_font/top1"  # quality, unless another metric is named

# Columns that every selection may name.
NEEDED = (
    *("batch_size", "seed", "status", "dataset_fingerprint", "data.dataset", "model.image.kind"),
    *("model.text.kind", "loss.kind", "loss.pairs.kind", "loss.pairs.keep"),
    *("loss.pairs.per_positive", "optimizer.learning_rate"),
)


def with_fields(cells: pd.DataFrame, fields: Sequence[str] = ()) -> pd.DataFrame:
    """The cells whose fields are known, with the columns `NEEDED` and `fields`, None if missing."""
    if cells.empty:
        cells = cells.reindex(columns=list(dict.fromkeys([*COLUMNS, *cells])))
    cells = cells.assign(**{name: None for name in (*NEEDED, *fields) if name not in cells})
    cells = cells[cells["loss.kind"].notna() & cells["batch_size"].notna()]
    cells = cells.astype({"batch_size": "int64", "seed": "int64"})
    if cells["dataset_fingerprint"].notna().all():
        return cells.copy()  # in one block: callers add columns
    # A planned cell without a record has no fingerprint of its data set: take that of the others.
    prints = cells.groupby("data.dataset")["dataset_fingerprint"].transform(
        lambda column: column.mode().iloc[0] if column.notna().any() else None
    )
    return cells.assign(dataset_fingerprint=cells["dataset_fingerprint"].fillna(prints)).copy()


def evaluated(done: pd.DataFrame) -> list[str]:
    """The metrics of evaluations that cells ended with."""
    return [name for name in done if name.startswith("eval/") and done[name].notna().any()]


def usual_quality(cells: pd.DataFrame) -> str:
    """`TOP1`, or of cells without it the zero-shot accuracy that they were evaluated on first."""
    zero_shot = [name for name in evaluated(cells) if name.startswith("eval/zero_shot/")]
    zero_shot = [name for name in zero_shot if name.endswith("/top1")]
    return TOP1 if TOP1 in zero_shot else next(iter(zero_shot), TOP1)


def check_metric(done: pd.DataFrame, metric: str, study: str) -> None:
    """Raises AnalysisError where no finished cell of a study has the metric."""
    if metric not in done or not done[metric].notna().any():
        names = evaluated(done)
        reason = f"; metrics that they have: {', '.join(names)}" if names else ""
        raise AnalysisError(f"no cell of {study} has ended with {metric}{reason}")


def same_fields(
    cells: pd.DataFrame, axes: Sequence[str], *, ignoring: Sequence[str] = ()
) -> list[str]:
    """The fields that are neither axes, nor ignored, nor the seed.

    Args:
      axes, ignoring: columns, or beginnings of columns.
    """
    left = (*axes, *ignoring)
    return [
        name
        for name in cells.columns
        if (name.startswith(FIELDS) or name == "batch_size") and not name.startswith(left)
    ]


def row_keys(cells: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values of these columns, one tuple per cell; a missing value is None."""
    columns = list(columns)
    if cells.empty or not columns:
        return [()] * len(cells)
    values = []
    for name in columns:  # one by one: faster than a table of mixed types
        missing = cells[name].isna()
        known = cells[name].tolist()
        values.append([None if gap else value for value, gap in zip(known, missing, strict=True)])
    return list(zip(*values, strict=True))


def most_complete(cells: pd.DataFrame, fields: Sequence[str], axes: Sequence[str]) -> pd.DataFrame:
    """Of cells in several configurations those of the one with most points of the axes.

    Points with a finished cell count first, then all points, then cells, then examples seen.
    Cells of different configurations are never averaged.

    Args:
      fields: columns that all cells of one configuration have equal.
      axes: columns whose combinations are the points.
    """
    if cells.empty:
        return cells
    keys = row_keys(cells, fields)
    table = pd.DataFrame(
        {
            "configuration": _codes(keys),
            "point": _codes(row_keys(cells, axes)),
            "examples": cells["examples"].astype(float).fillna(0.0).to_numpy(),
        }
    )
    by_configuration = table.groupby("configuration")
    done = table[(cells["status"] == "done").to_numpy()]
    scores = pd.DataFrame(
        {
            "done": done.groupby("configuration")["point"].nunique(),
            "points": by_configuration["point"].nunique(),
            "cells": by_configuration.size(),
            "examples": by_configuration["examples"].max(),
        }
    ).fillna(0.0)
    best_score = scores.sort_values(list(scores), ascending=False).iloc[0]
    rows = table["configuration"].isin(scores.index[scores.eq(best_score).all(axis=1)])
    # Of equals the same every time.
    best = min((key for key, row in zip(keys, rows, strict=True) if row), key=repr)
    return cells[[key == best for key in keys]]


def _codes(keys: Sequence[tuple[Any, ...]]) -> list[int]:
    """A number for each different key."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [numbers[key] for key in keys]


def matched_differences(
    cells: pd.DataFrame, field: str, first: Any, second: Any, value: str
) -> dict[tuple[Any, ...], list[Score]]:
    """Value at `first` minus value at `second`, of cells of one seed that differ in `field` alone.

    Returns: the differences by configuration (`same_fields` without `field`), one per seed.
    """
    if value not in cells or field not in cells:
        return {}
    values: dict[tuple[Any, ...], dict[Any, Score]] = {}
    for key, level, score in zip(
        row_keys(cells, [*same_fields(cells, [field]), "seed"]),
        cells[field],
        read_scores(cells, value),
        strict=True,
    ):
        if math.isfinite(score):
            values.setdefault(key, {})[level] = score
    differences: dict[tuple[Any, ...], list[Score]] = {}
    for (*configuration, _), levels in values.items():
        if first in levels and second in levels:
            difference = levels[first].minus(levels[second])
            differences.setdefault(tuple(configuration), []).append(difference)
    return differences
