"""Cells of the map of examples per step against pairs per example (sigmoid loss).

They have `loss.pairs.kind` "groups", by batch size and group size; cells with all pairs and the
same other fields join them, with the batch as their group. The learning rate may follow both. There
is one map for each initial bias, of cells with equal examples or with equal steps.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.select.deciding import examples_of
from analysis.select.fields import most_complete, row_keys, same_fields, with_fields
from analysis.select.panels import Panel
from analysis.select.rate_rule import RATE, is_searching

GROUP, START = "loss.pairs.size", "loss.b_init"
AXES = ("batch_size", GROUP)
Equal = Literal["examples", "steps"]


def by_start(cells: pd.DataFrame, *, equal: Equal = "examples") -> dict[Any, Panel]:
    """The maps of a study by `loss.b_init`, a number or "prior"; empty without groups.

    Of several numbers of examples, or of steps, the one with most points counts. Equal steps take
    two batch sizes. Seeds that search for the learning rate are left out.
    """
    cells = with_fields(cells, [GROUP, START, RATE])
    sigmoid = cells[cells["loss.kind"] == "sigmoid"]
    sigmoid = sigmoid.assign(total=_total(sigmoid, equal))
    grouped = sigmoid[sigmoid["loss.pairs.kind"] == "groups"]
    if grouped.empty:
        return {}
    point = pd.Series(row_keys(grouped, (*AXES, START, "total")), index=grouped.index, dtype=object)
    grouped = grouped[~is_searching(grouped, grouped[RATE], point)]
    free = (*AXES, START, RATE, "budget.")
    chosen = most_complete(grouped, [*same_fields(grouped, free), "total"], (*AXES, START))
    if equal == "steps" and chosen["batch_size"].nunique() < 2:
        return {}
    whole = sigmoid[sigmoid["loss.pairs.kind"] == "all"]
    whole = whole.assign(**{GROUP: whole["batch_size"]})
    rest = [name for name in same_fields(sigmoid, free) if not name.startswith("loss.pairs.")]
    same = [*(name for name in rest if name in chosen), "total", START]
    maps = {}
    starts = row_keys(chosen, [START])
    for start in sorted({*starts}, key=lambda start: str(start[0])):
        mine = chosen[[key == start for key in starts]]
        shared = row_keys(mine, same)[0]
        own = whole[[key == shared for key in row_keys(whole, same)]]
        own = own[own["batch_size"].isin(mine["batch_size"]) & own["seed"].isin(mine["seed"])]
        by_size = _one_rate(mine, mine).sort_values("batch_size", kind="stable")
        both = pd.concat([by_size, _one_rate(own, mine)])
        both = both.astype({GROUP: "int64"}).copy()  # in one block: callers add columns
        both.attrs = dict(cells.attrs)
        maps[start[0]] = Panel(cells=both, axes=AXES)
    return maps


def _total(cells: pd.DataFrame, equal: Equal) -> pd.Series:
    """Examples or steps of each run."""
    examples = pd.Series(examples_of(cells), index=cells.index)
    return examples if equal == "examples" else examples // cells["batch_size"]


def _one_rate(cells: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """At each point the cells at one learning rate: of those with most seeds, the one nearest to
    the rate that `groups` have most often at the batch size."""
    parts = [cells[:0]]
    for (size, _), mine in cells.groupby(list(AXES)):
        seeds = mine.groupby(RATE)["seed"].nunique()
        usual = groups.loc[groups["batch_size"] == size, RATE].mode().iloc[0]
        most = seeds.index[seeds == seeds.max()]
        best = min(most, key=lambda rate: (abs(np.log(rate / usual)), rate))
        parts.append(mine[mine[RATE] == best])
    return pd.concat(parts).sort_index()
