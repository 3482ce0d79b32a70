"""Cells that go on from a checkpoint of another, and runs whose batch size grew.

A branch with a schedule of its own is one of several from the same checkpoint. One that continues
the schedule of a whole run (`optimizer.schedule_examples`) is a part of it.
"""

from __future__ import annotations

import pandas as pd

from analysis.select.fields import row_keys, same_fields, with_fields
from analysis.select.panels import NEAR, Panel, select

CELL, AT, WHOLE = "branch.cell", "branch.examples", "optimizer.schedule_examples"
SHIFT = "branch.bias_shift"
RATE, DECAY, BUDGET = "optimizer.learning_rate", "optimizer.weight_decay", "budget.examples"
# The arm of branches whose bias follows the odds of a positive; softmax has no bias.
SHIFTED = "sigmoid, shifted bias"
ARMS = ("sigmoid", SHIFTED, "softmax")
AXES = ("batch_size", "loss.kind", AT, SHIFT)
WARM_UPS = ("arm", "loss.kind", "seed", "sizes", "batch_size", "grown", "constant")


def branch_points(cells: pd.DataFrame) -> Panel:
    """Branches with a schedule of their own, by batch size, loss, examples before them and shift.

    Rate and decay may follow the batch size and the point.
    """
    cells = _with_branches(cells)
    mine = cells[cells[CELL].notna() & cells[WHOLE].isna()]
    if mine.empty:
        return Panel(cells=mine, axes=AXES)
    return select(mine, AXES, free=("branch.", RATE, DECAY), by_loss=("loss.",))


def _with_branches(cells: pd.DataFrame) -> pd.DataFrame:
    cells = with_fields(cells, [CELL, AT, WHOLE, SHIFT])
    return cells.assign(**{SHIFT: cells[SHIFT].astype(float).fillna(0.0)})


def by_arm(done: pd.DataFrame) -> pd.DataFrame:
    """Branches of `branch_points` with the column "arm": their loss, or `SHIFTED`.

    A branch with the batch size of its parent, where nothing is shifted, is in both arms of a loss.
    """
    shifted = done[done[SHIFT] != 0]
    common = done["loss.kind"].isin(shifted["loss.kind"]) & ~done["batch_size"].isin(
        shifted["batch_size"]
    )
    plain = done[done[SHIFT] == 0]
    return pd.concat(
        [
            plain.assign(arm=plain["loss.kind"]),
            pd.concat([shifted, done[common]]).assign(arm=SHIFTED),
        ],
        ignore_index=True,
    )


def warm_ups(cells: pd.DataFrame) -> pd.DataFrame:
    """Runs whose batch size grew, each with the constant run of one of its sizes.

    Both have the same seed, budget and schedule, and at that batch size the same rate.

    Returns: `WARM_UPS`, a row for each such pair: arm (the loss, or `SHIFTED`), loss, seed, the
      sizes in order ("256, 1024"), the constant size, and the ids of the last cell of the run and
      of the constant run.
    """
    cells = _with_branches(with_fields(cells, [BUDGET]))
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
        loss = str(end["loss.kind"])
        arm = SHIFTED if any(part[SHIFT] != 0 for part in chain) else loss
        for size, rate in sizes.items():
            found = lookup.get((key, size, rate, float(end[WHOLE])))
            if found is not None and len(sizes) > 1:
                about = (arm, loss, end["seed"], ", ".join(map(str, sizes)), size)
                rows.append((*about, end["id"], found))
    return pd.DataFrame(rows, columns=list(WARM_UPS))
