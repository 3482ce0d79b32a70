"""`study status`: states, columns and order; and one line for each study under a root."""

import json

import pytest

from study.config import Budget, Cell, to_dict
from study.records.record import Progress, Record, write_failure
from sweeps.cli.status import status
from sweeps.cli.table import sort_rows
from sweeps.study import Study, StudyError

KEY = "eval/zero_shot/val_font/top1"
CELLS = tuple(Cell(batch_size=16, seed=s, budget=Budget(steps=10)) for s in range(4))


@pytest.fixture
def records(tmp_path, monkeypatch) -> str:
    """Of `own`: two cells are done, one failed, one is pending. And a folder of an unknown grid."""
    studies = {"own": Study(name="own", question="Q?", cells=CELLS)}
    monkeypatch.setattr("sweeps.registry.load_study", studies.__getitem__)
    monkeypatch.setattr("sweeps.registry.builtin_studies", lambda: ["own"])
    for cell, quality in zip(CELLS, (40.0, 50.0, None), strict=False):
        record = Record(tmp_path / "own" / cell.id)
        about = {"id": cell.id, "hash": cell.hash, "cell": to_dict(cell), "steps": cell.steps}
        record.begin(about, seen=Progress(0, 0, 0))
        if quality:
            end = Progress(10, 160, 2560)
            record.finish(end, status="done", summary={KEY: quality}, seconds={"train": 1.0})
        else:
            record.close()
            write_failure(tmp_path / "own" / cell.id, error="out of memory")
    (tmp_path / "gone" / CELLS[0].id).mkdir(parents=True)
    return str(tmp_path)


def lines(capsys) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_root_is_a_line_for_each_study(records, capsys):
    code = status(None, records)
    head, gone, own = lines(capsys)
    assert (gone[0], own[:3]) == ("gone", ["own", "4", "2"])
    assert head[:3] == ["study", "cells", "done"]
    assert status(None, records, state=["cancelled"]) == code
    assert len(lines(capsys)) == 1
    assert status(None, records, columns="study,pending", sort="-pending") == code
    assert lines(capsys) == [["study", "pending"], ["own", "1"], ["gone"]]
    assert status(None, records, as_json=True) == code
    found = json.loads(capsys.readouterr().out)
    assert [one["cells"] for one in found] == [None, 4]


def test_cells_by_state_with_fields_and_metrics_sorted(records, capsys):
    status("own", records, columns=f"cell,seed,{KEY}", sort=f"-{KEY}")
    head, *rows, _ = lines(capsys)
    assert head == ["cell", "seed", KEY]
    assert [row[1:] for row in rows] == [["1", "50"], ["0", "40"], ["2"], ["3"]]
    status("own", records, state=["done"])
    assert [row[1] for row in lines(capsys)[1:-1]] == ["done", "done"]
    status("own", records, state=["done"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert len(found["cells"]) == 2 and sum(found["states"].values()) == 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("own", {"columns": "lost"}, "no column lost; columns are"),
        ("own", {"sort": "-lost"}, "no column lost"),
        (None, {"sort": "lost"}, "no column lost; columns are study"),
        ("own", {"state": ["lost"]}, "--state lost: no such state"),
        (None, {"watch": True}, "need a STUDY"),
    ],
)
def test_what_cannot_be_shown_is_one_line(records, name, options, message):
    with pytest.raises(StudyError, match=message):
        status(name, records, **options)


def test_rows_without_a_value_are_last_in_either_order():
    for descending, first in ((False, [1, 2]), (True, [2, 1])):
        assert sort_rows([2, None, 1], lambda row: row, descending=descending) == [*first, None]
