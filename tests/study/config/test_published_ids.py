"""Every published cell is read, and has the id under which it is published."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from study.config import Budget, Cell, Sigmoid, branch_from, from_dict, replace, to_dict
from study.config.cell import ADDED, all_fields

RESULTS = Path(__file__).parents[3] / "results" / "glyphs"
SNAPSHOTS = sorted(path.parent for path in RESULTS.parent.rglob("cells.parquet"))


@pytest.mark.parametrize("folder", SNAPSHOTS, ids=lambda folder: folder.name)
def test_the_cells_of_a_snapshot_keep_their_ids(folder):
    cells = pd.read_parquet(folder / "cells.parquet", columns=["id", "cell.json"])
    assert len(cells)
    for published, about in zip(cells["id"], cells["cell.json"], strict=True):
        about = json.loads(about)
        cell = from_dict(about["cell"])
        assert (cell.id, cell.hash) == (published, about["hash"])


def test_the_cells_of_the_records_keep_their_ids():
    paths = list((RESULTS / "records").rglob("cell.json"))
    assert len(paths) == 18
    for path in paths:
        about = json.loads(path.read_text())
        assert from_dict(about["cell"]).id == about["id"] == path.parent.name


def test_a_field_added_since_is_recorded_only_where_it_is_not_as_before():
    """Else cells recorded before and after it would not be in one panel."""
    cell = Cell(batch_size=8, loss=Sigmoid(), budget=Budget(steps=4))
    recorded, every = to_dict(cell), all_fields(cell)
    assert "same_caption" in every["loss"] and "same_caption" not in recorded["loss"]
    assert "branch" in every and "branch" not in recorded
    masked = replace(cell, "loss.same_caption", "masked")
    assert to_dict(masked)["loss"]["same_caption"] == "masked"
    assert from_dict(to_dict(masked)) == masked != cell == from_dict(recorded)
    average = replace(cell, "model.text", {"kind": "mean_pool"})
    branch = branch_from(average, percent=50, batch_size=8, budget=Budget(steps=1))
    for path in ADDED:  # each is a field, and can be set
        assert _has(all_fields(branch), path.split(".")), path


def _has(node, parts):
    if parts and node.get("kind") == parts[0]:
        return _has(node, parts[1:])
    return not parts or (parts[0] in node and (len(parts) == 1 or _has(node[parts[0]], parts[1:])))


def test_a_field_that_one_kind_got_later_stays_recorded_in_the_kind_that_always_had_it():
    """The paper's grids hash `bottleneck` of the transformer, None included."""
    cell = Cell(batch_size=8, budget=Budget(steps=4))
    assert to_dict(cell)["model"]["text"]["bottleneck"] is None
    average = replace(cell, "model.text", {"kind": "mean_pool"})
    assert "bottleneck" not in to_dict(average)["model"]["text"]
    narrow = replace(average, "model.text.bottleneck", 4)
    assert to_dict(narrow)["model"]["text"]["bottleneck"] == 4
    assert from_dict(to_dict(narrow)) == narrow != average == from_dict(to_dict(average))
