"""Cells by what a pair with equal captions or classes is, and by batch size (sigmoid, all pairs).

`loss.same_caption` is "negative" as in the paper, "masked" or "positive", and `loss.same_by` says
what is equal. The learning rate may follow the batch size.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.select.fields import most_complete, row_keys, same_fields, with_fields
from analysis.select.panels import Panel
from analysis.select.rate_rule import RATE, is_searching

SAME, BY = "loss.same_caption", "loss.same_by"
BY_CLASS = " by class"
NEGATIVE = "negative"
WAYS = ("masked", "positive", f"masked{BY_CLASS}", f"positive{BY_CLASS}")
AXES = ("batch_size", SAME)


def by_size(cells: pd.DataFrame) -> Panel:
    """The cells that leave such pairs out or take them as positives, and those equal in all else
    that take them as negatives. Empty without one of the former.

    The column `SAME` has one of `WAYS`, or `NEGATIVE`.
    """
    cells = with_fields(cells, [SAME, BY, RATE])
    cells = cells[(cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")]
    by_class = cells[BY].eq("class")
    way = cells[SAME].astype(object).fillna(NEGATIVE) + np.where(by_class, BY_CLASS, "")
    cells = cells.assign(**{SAME: way})
    fields = same_fields(cells, AXES, ignoring=(RATE, BY))
    chosen = most_complete(cells[cells[SAME].isin(WAYS)], fields, AXES)
    if len(chosen):
        shared = row_keys(chosen, fields)[0]
        chosen = cells[[key == shared for key in row_keys(cells, fields)]]
        point = pd.Series(row_keys(chosen, AXES), index=chosen.index)
        chosen = chosen[~is_searching(chosen, chosen[RATE], point)]
        chosen = chosen.sort_values([*AXES, "seed", "id"], ignore_index=True)
    chosen.attrs = dict(cells.attrs)
    return Panel(cells=chosen, axes=AXES)
