"""Studies that share a folder of records: a cell is trained once, and each finds it."""

from __future__ import annotations

import json

import pytest

from analysis.records import frame
from study.config import Budget, Cell, to_dict
from sweeps.cli import list as cli_list
from sweeps.cli.list import short
from sweeps.cli.recorded import recorded_study
from sweeps.runner import cell_status as ledger
from sweeps.study import Assumption, Study, StudyError, merge_cells

A, B, C = (Cell(batch_size=16, seed=seed, budget=Budget(examples=64)) for seed in range(3))
SHARED = {"question": "Q?", "group": "all"}
ONE = Study(name="one", cells=(A, B), **SHARED)
TWO = Study(name="two", cells=(B, C), **SHARED)


def finish(study: Study, cell: Cell, root) -> None:
    folder = study.folder(root) / cell.id
    folder.mkdir(parents=True)
    about = {"id": cell.id, "hash": cell.hash, "cell": to_dict(cell)}
    (folder / "cell.json").write_text(json.dumps(about))
    seen = {"step": 4, "examples_seen": 64, "pairs_seen": 1024, "attempt": 1}
    (folder / "DONE.json").write_text(json.dumps({"status": "done", **seen, "summary": {}}))


def test_a_cell_that_one_study_trained_is_over_in_the_other(tmp_path):
    finish(ONE, B, tmp_path)
    assert [e.state for e in ledger.read(ONE, tmp_path)] == ["pending", "done"]
    assert [e.state for e in ledger.read(TWO, tmp_path)] == ["done", "pending"]


def test_a_frame_holds_the_studys_own_cells_of_a_shared_folder(tmp_path):
    for cell in (A, B, C):
        finish(ONE, cell, tmp_path)
    planned = [{"id": c.id, "cell": to_dict(c)} for c in TWO.cells]
    cells = frame.cells(tmp_path, "two", planned=planned, records="all")
    assert set(cells["id"]) == {B.id, C.id}
    assert set(frame.cells(tmp_path, "all")["id"]) == {A.id, B.id, C.id}


def test_a_study_without_a_folder_of_its_own_names_the_one_it_shares(tmp_path):
    name, where = recorded_study("fig-3", str(tmp_path))
    assert (name, where["records"]) == ("fig-3", "paper")
    assert len(where["planned"]) == 16 and where["planned"][0]["cell"]["batch_size"]
    (tmp_path / "gone").mkdir()
    assert recorded_study("gone", str(tmp_path)) == ("gone", {})


def test_a_folder_is_a_name_and_by_default_the_studys_own():
    assert Study(name="alone", question="Q?", cells=(A,)).group == "alone"
    with pytest.raises(StudyError, match="study group"):
        Study(name="alone", question="Q?", cells=(A,), group="../x")


def test_the_union_of_studies_has_each_cell_once():
    assert merge_cells([ONE, TWO]) == (A, B, C)


def test_list_says_what_a_study_varies_and_assumes(capsys):
    assumed = Assumption("seed", "0", "Not given.")
    study = Study(name="one", question="Why?", cells=(A, B), assumptions=(assumed,), group="all")
    assert cli_list.show_study(study, as_json=False) == 0
    text = capsys.readouterr().out
    for word in ("Why?", A.id, B.id, "- seed: 0. Not given.", "ROOT/all", "2 cells"):
        assert word in text
    assert cli_list.show_study(study, as_json=True) == 0
    about = json.loads(capsys.readouterr().out)
    assert [c["id"] for c in about["cells"]] == [A.id, B.id]
    assert about["examples"] == 128 and about["pairs"] == 2 * 4 * 256
    assert about["assumptions"] == [{"name": "seed", "value": "0", "reason": "Not given."}]


def test_list_shows_all_studies_with_counts_and_what_they_take(capsys):
    assert cli_list.list_studies(as_json=True) == 0
    found = {s["study"]: s for s in json.loads(capsys.readouterr().out)}
    assert found["table-8"]["cells"] == 77
    assert found["fig-4"]["paper_hardware"] and found["table-8"]["paper_hardware"] is None
    assert found["glyphs"]["core_seconds"] > 3600
    assert cli_list.list_studies(as_json=False) == 0
    text = capsys.readouterr().out
    assert "4x1, 4x2, 16x3, 32x2, 32x5" in text and "of one CPU core" in text


def test_counts_are_short():
    assert [short(n) for n in (18 * 10**9, 450 * 10**6, 999, 1500, 393_216_000_000)] == [
        "18B", "450M", "999", "1.5k", "393B"
    ]  # fmt: skip
