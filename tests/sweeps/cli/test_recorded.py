"""A snapshot is read whole, with what its grids stated, whatever the grids have become since."""

from __future__ import annotations

import dataclasses

import pytest

from analysis.records import snapshot
from analysis.records.frame import cells, open_records
from study.config import Budget, Cell
from sweeps.cli.recorded import recorded_study, stated_in, stated_today
from sweeps.study import Assumption, Study
from tests.analysis.conftest import Writer

A, B, C, NEW, SET = (
    Cell(batch_size=16, seed=seed, budget=Budget(examples=64)) for seed in range(5)
)
RATE = Assumption("rate", "0.01", "Tuned.")
ALL = Study(name="all", question="Then?", cells=(A, B, C), assumptions=(RATE,))
PART = Study(name="part", question="Part?", cells=(B, C), group="all")


@pytest.fixture
def grids(monkeypatch):
    """The built-in studies, by name; a test changes them."""
    known = {"all": ALL, "part": PART}
    monkeypatch.setattr("sweeps.registry.load_study", known.__getitem__)
    monkeypatch.setattr("sweeps.registry.builtin_studies", lambda: sorted(known))
    return known


@pytest.fixture
def root(grids, tmp_path):
    writer = Writer(tmp_path / "runs", "all")
    for cell in (*ALL.cells, SET):  # that of a --set is not in the grid
        writer.done(cell, 30.0)
    records = open_records(writer.root)
    snapshot.write(records, tmp_path / "snap", grids=stated_today(records))
    grids["all"] = dataclasses.replace(ALL, question="Now?", cells=(A, NEW), assumptions=())
    grids["part"] = dataclasses.replace(PART, cells=(NEW,))
    return tmp_path


@pytest.mark.parametrize(("name", "held"), [("all", {A, B, C}), ("part", {B, C})])
def test_a_changed_grid_leaves_a_snapshot_as_it_was(root, name, held, capsys):
    study, where = recorded_study(name, str(root / "snap"))
    frame = cells(root / "snap", study, **where)
    assert set(frame["id"]) == {cell.id for cell in held}
    assert frame.attrs["planned"] and (frame["status"] == "done").all()
    assert frame["flops.towers"].notna().all()
    assert "1 cells of the grid are not in the snapshot; 2 cells of" in capsys.readouterr().err
    _, where = recorded_study(name, str(root / "snap"), only=["seed=2"])
    assert [each["id"] for each in where["planned"]] == [C.id]
    assert capsys.readouterr().err == ""


def test_records_have_the_cells_that_the_grid_lists_today(root):
    _, where = recorded_study("all", str(root / "runs"))
    assert [each["id"] for each in where["planned"]] == [A.id, NEW.id]


def test_what_a_grid_stated_stays_in_a_snapshot_and_in_its_copies(root, grids, study):
    assert study("pull", "--from", str(root / "snap"), "--out", str(root / "copy"))[0] == 0
    for place in ("snap", "copy"):
        stated = stated_in(grids["all"], str(root / place))
        assert (stated["question"], stated["assumptions"]) == ("Then?", [vars(RATE)])
    assert stated_in(grids["all"], str(root / "runs"))["question"] == "Now?"
    assert "grids" not in snapshot.write(open_records(root / "runs"), root / "bare")


def test_a_snapshot_of_a_part_is_read_as_a_part_of_the_whole(root, grids, study, capsys):
    grids.update(all=ALL, part=PART)
    assert study("pull", "part", "--from", str(root / "runs"), "--out", "part.snap")[0] == 0
    _, where = recorded_study("all", "part.snap")
    assert [each["id"] for each in where["planned"]] == [B.id, C.id]
    assert "1 cells of the grid are not in the snapshot" in capsys.readouterr().err


def test_a_snapshot_of_a_study_leaves_out_what_is_of_others_alone(root, grids, study):
    grids["all"] = dataclasses.replace(ALL, cells=(A, B))
    grids["part"] = PART
    held = {"all": {A, B, SET}, "part": {B, C, SET}}
    for name, wanted in held.items():
        code, _, err = study("pull", name, "--from", str(root / "runs"), "--out", f"{name}.snap")
        assert (code, err) == (0, "")
        assert set(cells(f"{name}.snap", "all")["id"]) == {cell.id for cell in wanted}
    assert [c["id"] for c in recorded_study("part", "part.snap")[1]["planned"]] == [B.id, C.id]
