"""Cells of the map of examples per step against pairs per example (sigmoid loss).

They have `loss.pairs.kind` "groups", by batch size and group size; cells with all pairs and the
same other fields join them, with the batch as their group. The learning rate may follow the batch
size. There is one map for each initial bias.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.select.fields import most_complete, row_keys, same_fields, with_fields
from analysis.select.panels import Panel

GROUP, RATE, START = "loss.pairs.size", "optimizer.learning_rate", "loss.b_init"
AXES = ("batch_size", GROUP)


def by_start(cells: pd.DataFrame) -> dict[Any, Panel]:
    """The maps of a study by `loss.b_init`, a number or "prior"; empty without groups."""
    cells = with_fields(cells, [GROUP, START])
    sigmoid = cells[cells["loss.kind"] == "sigmoid"]
    grouped = sigmoid[sigmoid["loss.pairs.kind"] == "groups"]
    if grouped.empty:
        return {}
    chosen = most_complete(grouped, _fields(grouped), (*AXES, START))
    whole = sigmoid[sigmoid["loss.pairs.kind"] == "all"]
    rest = [name for name in _fields(sigmoid) if not name.startswith("loss.pairs.")]
    rest = [name for name in rest if name in chosen]
    maps = {}
    starts = row_keys(chosen, [START])
    for start in sorted({*starts}, key=lambda start: str(start[0])):
        # One learning rate for each batch size: the one with most groups.
        of_start = chosen[[key == start for key in starts]]
        mine = pd.concat(
            [most_complete(same, [RATE], AXES) for _, same in of_start.groupby("batch_size")]
        )
        same = [*rest, RATE, START, "batch_size", "seed"]
        keys = set(row_keys(mine, same))
        own = whole[[key in keys for key in row_keys(whole, same)]]
        both = pd.concat([mine, own.assign(**{GROUP: own["batch_size"]})])
        both = both.astype({GROUP: "int64"}).copy()  # in one block: callers add columns
        both.attrs = dict(cells.attrs)
        maps[start[0]] = Panel(cells=both, axes=AXES)
    return maps


def _fields(cells: pd.DataFrame) -> list[str]:
    return same_fields(cells, (*AXES, START), ignoring=(RATE,))
