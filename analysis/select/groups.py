"""The map of examples per step and pairs per example, which only the sigmoid loss can part.

Cells: sigmoid with `loss.pairs.kind` = groups, by batch_size and group size, and the cells with
all pairs equal in the rest, whose group is the whole batch. The learning rate may follow the
batch size. One map for each bias that the cells start from.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.select.fields import keys, most, same_fields, values, with_fields
from analysis.select.panels import Panel

GROUP, RATE, START = "loss.pairs.size", "optimizer.learning_rate", "loss.b_init"
AXES = ("batch_size", GROUP)


def by_start(cells: pd.DataFrame) -> dict[Any, Panel]:
    """The maps of a study by `loss.b_init`, a number or "prior"; empty without groups."""
    cells = with_fields(cells, [GROUP, RATE, START, "loss.pairs.kind"])
    sigmoid = cells[cells["loss.kind"] == "sigmoid"]
    grouped = sigmoid[sigmoid["loss.pairs.kind"] == "groups"]
    if grouped.empty:
        return {}
    chosen = most(grouped, keys(grouped, _fields(grouped)), (*AXES, START))
    whole = sigmoid[sigmoid["loss.pairs.kind"] == "all"]
    rest = [name for name in _fields(sigmoid) if not name.startswith("loss.pairs.")]
    rest = [name for name in rest if name in chosen]
    maps = {}
    for start in sorted({*values(chosen[START])}, key=str):
        mine = _one_rate(chosen[[value == start for value in values(chosen[START])]])
        same = [*rest, RATE, START, "batch_size", "seed"]
        wanted = set(keys(mine, same))
        own = whole[[key in wanted for key in keys(whole, same)]]
        both = pd.concat([mine, own.assign(**{GROUP: own["batch_size"]})])
        both = both.astype({GROUP: "int64"}).copy()  # in one piece: it gets more columns
        both.attrs = dict(cells.attrs)
        maps[start] = Panel(cells=both, axes=AXES)
    return maps


def _fields(cells: pd.DataFrame) -> list[str]:
    return same_fields(cells, (*AXES, START), ignoring=(RATE,))


def _one_rate(cells: pd.DataFrame) -> pd.DataFrame:
    """One learning rate for each batch size: the one with most groups."""
    parts = [most(same, keys(same, [RATE]), AXES) for _, same in cells.groupby("batch_size")]
    return pd.concat(parts)
