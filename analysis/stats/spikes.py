"""Spikes of a norm along a run: how far single steps stand above those around them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

WINDOW = 9  # rows around a row, whose median it is compared with
SPIKE = 3.0  # times that median
ENDS = "data.corruption.until_examples"  # where it is set, the data change within the run
GRADIENTS, UPDATES = "train/grad_norm", "train/update_norm"
WARM = 0.1  # of a run, left out: while the rate rises, updates grow by design
COLUMNS = ("id", "worst", "spikes")


def spikes(rows: pd.DataFrame, norm: str, *, after: Mapping[str, float]) -> pd.DataFrame:
    """The spikes of a column of the logged rows, of each cell.

    A row's norm is the maximum over the steps since the row before, where rows carry it as
    `<norm>_max`; in older records it is that of one step, and spikes between rows are unseen.

    Args:
      norm: a column with values above zero.
      after: by cell, the step after which rows count.

    Returns: columns id, worst (the largest log10 of a norm over the median of the norms of the rows
      around it) and spikes (how many percent of the rows have a norm above `SPIKE` times that
      median), of the cells of `after` that have `WINDOW` such rows.
    """
    found = []
    if norm in rows:
        largest = f"{norm}_max"
        rows = rows[rows["id"].isin(after.keys()) & (rows[norm] > 0)]
        top = rows[largest].fillna(rows[norm]) if largest in rows else rows[norm]
        rows = rows[["id", "step", norm]].assign(top=top)
        for cell, own in rows.groupby("id"):
            late = own[own["step"] > after[str(cell)]]
            if len(late) >= WINDOW:
                typical = np.log10(late[norm].astype(float))
                around = typical.rolling(WINDOW, center=True, min_periods=WINDOW // 2 + 1).median()
                over = np.log10(late["top"].astype(float)) - around
                found.append(
                    (cell, float(over.max()), 100 * float((over > np.log10(SPIKE)).mean()))
                )
    return pd.DataFrame(found, columns=list(COLUMNS)).astype(
        {"id": str, "worst": float, "spikes": float}
    )


def with_spikes(cells: pd.DataFrame, rows: pd.DataFrame, norm: str) -> pd.DataFrame:
    """The cells with columns worst and spikes of their rows after the warm-up.

    Where the data change, of those after the change.
    """
    if not len(rows):
        return cells.assign(worst=float("nan"), spikes=float("nan"))
    warm = WARM * cells["id"].map(rows.groupby("id")["step"].max()).astype(float)
    after = (cells[ENDS].astype(float) / cells["batch_size"]).fillna(warm)
    found = spikes(rows, norm, after=dict(zip(cells["id"], after, strict=True)))
    return cells.merge(found, on="id", how="left")
