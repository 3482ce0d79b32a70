"""Cells that differ in nothing but named fields, chosen by their fields, never by their names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.records.frame import FIELDS


def with_fields(cells: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """The cells whose fields are known, with every column of `fields` (None where it was not)."""
    wanted = ("batch_size", "seed", "status", "loss.kind", *fields)
    cells = cells.assign(**{name: None for name in wanted if name not in cells})
    known = cells[cells["loss.kind"].notna() & cells["batch_size"].notna()]
    # In one piece, for those who give it more columns.
    return known.astype({"batch_size": "int64", "seed": "int64"}).copy()


def varying(
    pool: pd.DataFrame, axes: Sequence[str], *, ignoring: Sequence[str] = ()
) -> pd.DataFrame:
    """Of `pool`, the cells equal in every other field that fill most points of the axes.

    Cells that differ in more than the axes are never averaged: where a study has several
    configurations that would fit, the one with most finished points is taken.

    Args:
      axes: columns in which the cells may differ, beside the seed.
      ignoring: columns, or beginnings of columns, that do not matter either.
    """
    fields = same_fields(pool, axes, ignoring=ignoring)
    return most(pool, keys(pool, fields), axes)


def same_fields(
    cells: pd.DataFrame, axes: Sequence[str], *, ignoring: Sequence[str] = ()
) -> list[str]:
    """The fields, seed apart, that are neither axes nor ignored."""
    left = (*axes, *ignoring)
    return [
        name
        for name in cells.columns
        if (name.startswith(FIELDS) or name == "batch_size") and not name.startswith(left)
    ]


def values(column: pd.Series) -> list[Any]:
    """The values of a column; what is missing is None."""
    missing = column.isna()
    if not missing.any():
        return column.tolist()
    return [None if gone else value for value, gone in zip(column, missing, strict=True)]


def keys(cells: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values of these columns, one tuple per cell; what is missing is None."""
    if not columns:
        return [()] * len(cells)
    return list(zip(*(values(cells[column]) for column in columns), strict=True))


def most(cells: pd.DataFrame, configurations: Sequence[Any], axes: Sequence[str]) -> pd.DataFrame:
    """The cells of the configuration with most points of the axes, finished ones first."""
    if cells.empty:
        return cells
    done = (cells["status"] == "done").tolist()
    lengths = cells["examples"].astype(float).fillna(0.0).tolist()
    members: dict[Any, list[int]] = {}
    for row, name in enumerate(configurations):
        members.setdefault(name, []).append(row)
    points = keys(cells, axes)

    def score(name: Any) -> tuple[float, ...]:
        mine = members[name]
        finished = {points[row] for row in mine if done[row]}
        every = {points[row] for row in mine}
        return (len(finished), len(every), len(mine), max(lengths[row] for row in mine))

    scores = {name: score(name) for name in members}
    highest = max(scores.values())
    # Of equals the same every time.
    best = min((name for name, own in scores.items() if own == highest), key=repr)
    return cells.iloc[members[best]]


def grouped(
    cells: pd.DataFrame, columns: Sequence[str], value: str
) -> dict[tuple[Any, ...], list[float]]:
    """The finite values of a column by the values of others, of which any may be None."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    if value in cells:
        for key, number in zip(keys(cells, columns), cells[value].astype(float), strict=True):
            if math.isfinite(number):
                groups.setdefault(key, []).append(float(number))
    return groups


def matched(
    cells: pd.DataFrame, field: str, first: Any, second: Any, value: str
) -> dict[tuple[Any, ...], list[float]]:
    """Of cells that differ in one field alone, seeds equal too, `first` minus `second`.

    Returns: the differences by configuration, one per seed.
    """
    if value not in cells or field not in cells:
        return {}
    fields = same_fields(cells, [field])
    found: dict[tuple[Any, ...], dict[int, dict[Any, float]]] = {}
    configurations = keys(cells, fields)
    for configuration, seed, level, number in zip(
        configurations, cells["seed"], cells[field], cells[value].astype(float), strict=True
    ):
        if math.isfinite(number):
            found.setdefault(configuration, {}).setdefault(seed, {})[level] = float(number)
    differences = {
        configuration: [
            levels[first] - levels[second]
            for levels in seeds.values()
            if first in levels and second in levels
        ]
        for configuration, seeds in found.items()
    }
    return {configuration: each for configuration, each in differences.items() if each}
