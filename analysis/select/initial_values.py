"""Where bias and temperature start, by batch size (paper Sec. 4.9, Table 4).

Cells: sigmoid with all pairs that differ in `loss.b_init` and `loss.t_init` alone, at each batch
size that has two starts at least. The learning rate may follow the batch size.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.select.fields import keys, varying, with_fields
from analysis.select.panels import Panel

AXES = ("loss.b_init", "loss.t_init")
Start = tuple[Any, ...]  # b_init (a number, "prior" or None) and t_init


def by_size(cells: pd.DataFrame) -> Panel:
    """The cells of every batch size with several starts; empty where there is none."""
    cells = with_fields(cells, [*AXES, "loss.pairs.kind"])
    pool = cells[(cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")]
    parts = [_several(varying(same, AXES)) for _, same in pool.groupby("batch_size")]
    several = [part for part in parts if len(part)]
    found = pd.concat(several).copy() if several else pool.iloc[:0]
    found.attrs = dict(cells.attrs)
    return Panel(cells=found, axes=("batch_size", *AXES))


def _several(cells: pd.DataFrame) -> pd.DataFrame:
    """The seeds that several starts were tried with."""
    tried = pd.Series(keys(cells, AXES), index=cells.index).groupby(cells["seed"]).nunique()
    return cells[cells["seed"].isin(tried.index[tried > 1])]


def name(start: Start) -> str:
    """As a caption has it: "b = -10, t' = log 10"."""
    bias, temperature = start
    if bias is None:
        said = "no bias"
    else:
        said = "b = log odds" if isinstance(bias, str) else f"b = {bias:g}"
    return f"{said}, t' = log {temperature:g}"
