"""Searches for the learning rate: seeds that try several rates at one batch size."""

from __future__ import annotations

import pandas as pd

from analysis.select.fields import most_complete, same_fields, with_fields
from analysis.select.panels import Panel
from analysis.select.rate_rule import RATE, SEARCH

AXES = ("batch_size", RATE)


def rate_searches(cells: pd.DataFrame, *, image: str) -> dict[str, Panel]:
    """By loss, the cells of the seeds that search: they differ in batch size and rate alone.

    At each batch size these are the seeds that try most rates: a mean over more seeds at one rate
    than at the next would move the optimum by noise. Sigmoid has all pairs.

    Args:
      image: `model.image.kind`, see `panels.batch_sizes`.
    """
    cells = with_fields(cells, [RATE])
    pool = cells[(cells["model.image.kind"] == image) & cells[RATE].notna()]
    pool = pool[(pool["loss.kind"] == "softmax") | (pool["loss.pairs.kind"] == "all")]
    fields = same_fields(pool, AXES)
    searches = {}
    for loss, mine in pool.groupby("loss.kind"):
        keys = [mine[field].astype(object).where(mine[field].notna(), None) for field in fields]
        points = [*keys, mine["batch_size"]]
        tried = mine.groupby([*points, mine["seed"]], dropna=False)[RATE].transform("nunique")
        most = tried.groupby(points, dropna=False).transform("max")
        chosen = most_complete(mine[(tried >= SEARCH) & (tried == most)], fields, AXES)
        if len(chosen):
            chosen = chosen.sort_values([*AXES, "seed", "id"], ignore_index=True)
            chosen.attrs = dict(cells.attrs)
            searches[str(loss)] = Panel(cells=chosen, axes=AXES)
    return searches


def repeated(cells: pd.DataFrame, search: Panel) -> pd.DataFrame:
    """The finished cells that differ from those of a search in rate, budget and seed alone: their
    seeds measure its noise."""
    cells = with_fields(cells, [RATE])
    fields = same_fields(cells, AXES, ignoring=("budget.",))
    first = search.cells.iloc[0]
    alike = cells["batch_size"].isin(search.cells["batch_size"]) & (cells["status"] == "done")
    for field in fields:
        value = first[field]
        alike &= cells[field].isna() if pd.isna(value) else cells[field] == value
    return cells[alike]
