"""Cells that go on from a checkpoint of another, and runs whose batch size grew.

A branch with a schedule of its own is one of several from the same checkpoint. One that continues
the schedule of a whole run (`optimizer.schedule_examples`) is a part of it.
"""

from __future__ import annotations

import pandas as pd

from analysis.select.fields import row_keys, same_fields, with_fields
from analysis.select.panels import NEAR, Panel, select

CELL, AT, WHOLE = "branch.cell", "branch.examples", "optimizer.schedule_examples"
RATE, DECAY, BUDGET = "optimizer.learning_rate", "optimizer.weight_decay", "budget.examples"
AXES = ("batch_size", "loss.kind", AT)
WARM_UPS = ("loss.kind", "seed", "sizes", "batch_size", "grown", "constant")


def branch_points(cells: pd.DataFrame) -> Panel:
    """Branches with a schedule of their own, by batch size, loss and the examples before them.

    Rate and decay may follow the batch size and the point.
    """
    cells = with_fields(cells, [CELL, AT, WHOLE])
    mine = cells[cells[CELL].notna() & cells[WHOLE].isna()]
    if mine.empty:
        return Panel(cells=mine, axes=AXES)
    return select(mine, AXES, free=("branch.", RATE, DECAY), by_loss=("loss.",))


def warm_ups(cells: pd.DataFrame) -> pd.DataFrame:
    """Runs whose batch size grew, each with the constant run of one of its sizes.

    Both have the same seed, budget and schedule, and at that batch size the same rate.

    Returns: `WARM_UPS`, a row for each such pair: loss, seed, the sizes in order ("256, 1024"),
      the constant size, and the ids of the last cell of the run and of the constant run.
    """
    cells = with_fields(cells, [CELL, AT, WHOLE, BUDGET])
    by_id = cells.set_index("id")
    whole = cells[WHOLE].astype(float)
    seen = cells[AT].astype(float) + cells["examples"].astype(float)
    ends = cells[cells[CELL].notna() & (seen > (1 - NEAR) * whole)]
    constant = cells[cells[CELL].isna() & whole.isna()]
    same = same_fields(cells, ("batch_size", "branch.", "budget."), ignoring=(RATE, WHOLE))
    same = [*same, "dataset_fingerprint", "seed"]
    lookup = {
        (key, size, rate, float(budget)): name
        for key, size, rate, budget, name in zip(
            row_keys(constant, same),
            *(constant[column] for column in ("batch_size", RATE, BUDGET, "id")),
            strict=True,
        )
        if budget == budget and budget is not None
    }
    rows = []
    for key, (_, end) in zip(row_keys(ends, same), ends.iterrows(), strict=True):
        chain = [end]
        while chain[-1][CELL] in by_id.index:
            chain.append(by_id.loc[chain[-1][CELL]])
        sizes = {int(part["batch_size"]): part[RATE] for part in reversed(chain)}
        for size, rate in sizes.items():
            found = lookup.get((key, size, rate, float(end[WHOLE])))
            if found is not None and len(sizes) > 1:
                about = (end["loss.kind"], end["seed"], ", ".join(map(str, sizes)), size)
                rows.append((*about, end["id"], found))
    return pd.DataFrame(rows, columns=list(WARM_UPS))
