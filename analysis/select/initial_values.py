"""Cells with several initial values of bias and temperature (paper Sec. 4.9, Table 4).

Sigmoid cells with all pairs that differ in `loss.b_init` and `loss.t_init` alone, at each batch
size with at least two starts. The learning rate may follow the batch size.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.select.fields import most_complete, row_keys, same_fields, with_fields
from analysis.select.panels import Panel

AXES = ("loss.b_init", "loss.t_init")
Start = tuple[Any, ...]  # b_init (a number, "prior" or None) and t_init


def by_size(cells: pd.DataFrame) -> Panel:
    """The cells of every batch size with several starts; empty if there are none."""
    cells = with_fields(cells, AXES)
    pool = cells[(cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")]
    parts = [pool.iloc[:0]]
    for _, same in pool.groupby("batch_size"):
        chosen = most_complete(same, same_fields(same, AXES), AXES)
        starts = pd.Series(row_keys(chosen, AXES), index=chosen.index, dtype=object)
        # A seed with one start has nothing to compare.
        parts.append(chosen[starts.groupby(chosen["seed"]).transform("nunique") > 1])
    several = pd.concat([part for part in parts if len(part)] or parts).copy()
    several.attrs = dict(cells.attrs)
    return Panel(cells=several, axes=("batch_size", *AXES))


def name(start: Start) -> str:
    """The start in words, such as "b = -10, t' = log 10"."""
    bias, temperature = start
    if bias is None:
        text = "no bias"
    else:
        text = "b = log odds" if isinstance(bias, str) else f"b = {bias:g}"
    return f"{text}, t' = log {temperature:g}"
