"""Every published cell is read, and has the id under which it is published."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from study.config import from_dict

RESULTS = Path(__file__).parents[3] / "results" / "glyphs"
SNAPSHOTS = {"snapshot": 646, "largest-batch": 1}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_cells_of_a_snapshot_keep_their_ids(name):
    cells = pd.read_parquet(RESULTS / name / "cells.parquet", columns=["id", "cell.json"])
    assert len(cells) == SNAPSHOTS[name]
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
