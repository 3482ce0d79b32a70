"""Cells with a queue, each beside the small batch alone and the batch as large as both.

A batch of B with a queue of Q (`loss.queue_examples`) meets as many pairs per example as a batch of
B + Q. The three differ in batch size, queue and learning rate alone, and are equal in examples, or
in the FLOPs of the whole run; only the cells of a study's grid have FLOPs.
"""

from __future__ import annotations

import math
from typing import Literal

import pandas as pd

from analysis.select.deciding import examples_of
from analysis.select.fields import row_keys, same_fields, with_fields
from analysis.select.panels import NEAR, QUEUE, Panel, numeric
from analysis.select.rate_rule import RATE, is_searching

FLOPS = ("flops.towers", "flops.loss")  # of one step
SMALL, STORED, LARGE = ROLES = ("small", "queue", "large")
ROLE, MATCH = "role", "match"  # columns: one of the three, and (batch size, queue) of STORED
AXES = ("loss.kind", MATCH, ROLE)
GROUP = ("loss.kind", "batch_size", QUEUE, "examples")  # cells that differ in the seed alone


def matches(cells: pd.DataFrame, *, equal: Literal["examples", "flops"]) -> Panel:
    """The cells of each match that has all three, by loss.

    A cell without a queue may be in several matches, and has a row in each.
    """
    cells = with_fields(cells, [QUEUE, RATE])
    cells = cells.assign(**{QUEUE: numeric(cells, QUEUE).astype(int)})
    empty = cells[:0].assign(**{MATCH: None, ROLE: None})
    if not (cells[QUEUE] > 0).any():
        return Panel(cells=empty, axes=AXES)
    cells = cells.assign(total=_total(cells, equal))
    cells = cells[cells["total"].notna()]
    fields = same_fields(cells, ("batch_size", QUEUE, RATE), ignoring=("budget.",))
    configuration = pd.Series(row_keys(cells, fields), index=cells.index, dtype=object)
    point = pd.Series(
        list(zip(configuration, cells["batch_size"], cells[QUEUE], cells["total"], strict=True)),
        index=cells.index,
        dtype=object,
    )
    cells = cells[~is_searching(cells, cells[RATE], point)]
    parts = []
    for _, alike in cells.groupby(configuration, sort=False):
        for (size, stored, total), own in alike[alike[QUEUE] > 0].groupby(
            ["batch_size", QUEUE, "total"]
        ):
            plain = alike[(alike[QUEUE] == 0) & ((alike["total"] / total - 1).abs() <= NEAR)]
            roles = {
                SMALL: plain[plain["batch_size"] == size],
                STORED: own,
                LARGE: plain[plain["batch_size"] == size + stored],
            }
            if all(map(len, roles.values())):
                match = (int(size), int(stored))
                parts += [
                    rows.assign(**{ROLE: role, MATCH: [match] * len(rows)})
                    for role, rows in roles.items()
                ]
    chosen = pd.concat(parts, ignore_index=True) if parts else empty
    chosen.attrs = dict(cells.attrs)
    return Panel(cells=chosen, axes=AXES)


def _total(cells: pd.DataFrame, equal: Literal["examples", "flops"]) -> pd.Series:
    """Examples or FLOPs of each whole run; NaN where they are unknown."""
    examples = pd.Series(examples_of(cells), index=cells.index)
    if equal == "examples":
        return examples
    towers, loss = (numeric(cells, name, otherwise=math.nan) for name in FLOPS)
    return (towers + loss) * examples / cells["batch_size"]
