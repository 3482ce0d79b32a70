"""A study is checked when it is built; whatever is wrong with a grid is one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sweeps.grids
from study.config import Adam, Budget, Cell, CellError, Negatives, Sigmoid, Softmax
from sweeps import registry
from sweeps.registry import load_study
from sweeps.selection import select
from sweeps.study import Study, StudyError, run_names

CELLS = tuple(
    Cell(batch_size=b, loss=loss, seed=seed, budget=Budget(examples=4096))
    for b in (16, 256, 512)
    for loss in (Sigmoid(), Softmax())
    for seed in (0, 1)
)
STUDY = Study(name="mine", question="Q?", cells=CELLS)
GRID = '''"""study run {path}"""
from study.config import Budget, Cell
from sweeps.study import Study
def study():
    return {body}
'''


def one_line(caught) -> str:
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def test_equal_cells_are_refused_by_id():
    with pytest.raises(StudyError) as caught:
        Study(name="mine", question="Q?", cells=(CELLS[0], CELLS[1], CELLS[0]))
    assert CELLS[0].id in one_line(caught)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"cells": ()}, "no cells"), ({"name": "a/b"}, "folder"), ({"cells": ("x",)}, "not a Cell")],
)
def test_a_study_that_cannot_be_is_refused(change, message):
    with pytest.raises(StudyError, match=message):
        Study(**{"name": "mine", "question": "Q?", "cells": CELLS, **change})


def test_an_unknown_study_names_the_nearest():
    with pytest.raises(StudyError) as caught:
        load_study("dmeo")
    assert "did you mean demo?" in one_line(caught)
    assert "study list" in str(caught.value)


def test_every_built_in_study_is_documented_with_its_launch_command():
    import importlib

    for name, place in registry.GRIDS.items():
        assert load_study(name).name == name
        module, _, function = place.partition(":")
        loaded = importlib.import_module(f"sweeps.grids.{module}")
        documented = getattr(loaded, function) if function else loaded
        assert documented.__doc__.startswith(f"study run {name}")


def test_every_grid_has_a_name():
    folder = Path(sweeps.grids.__file__).parent
    places = {
        f"{path.parent.name}.{path.stem}:{function}".removesuffix(":study")
        for path in folder.rglob("*.py")
        for function in re.findall(r"^def (\w+)\(\) -> Study:", path.read_text(), re.MULTILINE)
    }
    assert places == set(registry.GRIDS.values())


def test_a_grid_file_of_the_users_own_is_found(tmp_path):
    path = tmp_path / "own.py"
    body = "Study(name='own', question='Q?', cells=(Cell(batch_size=16),))"
    path.write_text(GRID.format(path=path, body=body))
    assert load_study(str(path)).cells == (Cell(batch_size=16),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", ":5: ZeroDivisionError"),
        ("Cell(batch_size=1)", ":5: batch_size = 1"),
        ("None", "not a Study"),
        ("Study(name='own', question='Q?', cells=())", "no cells"),
        ("(", ":5: SyntaxError"),
    ],
)
def test_a_broken_grid_file_is_one_line_that_says_where(tmp_path, body, message):
    path = tmp_path / "own.py"
    path.write_text(GRID.format(path=path, body=body))
    with pytest.raises(StudyError) as caught:
        load_study(str(path))
    assert message in one_line(caught)


def test_a_missing_grid_file_is_one_line(tmp_path):
    with pytest.raises(StudyError, match="no grid file"):
        load_study(str(tmp_path / "nothing.py"))


def test_run_names_say_what_varies_within_the_study():
    assert STUDY.run_names[CELLS[0].id] == "b16 sigmoid 4.1k s0"
    a, b, c = (
        Cell(batch_size=512, budget=Budget(pairs=10**9), loss=loss, optimizer=optimizer)
        for loss, optimizer in (
            (Sigmoid(pairs=Negatives(keep="hard", per_positive=16)), Adam()),
            (Sigmoid(), Adam(b2=0.999)),
            (Sigmoid(b_init=0.0), Adam()),
        )
    )
    assert list(run_names((a, b, c)).values()) == [
        "b512 sigmoid hard16 1B pairs s0",
        "b512 sigmoid 1B pairs s0",
        "b512 sigmoid 1B pairs loss.b_init=0 s0",
    ]


def test_a_cell_is_found_by_the_beginning_of_its_id():
    cell = CELLS[-1]
    assert STUDY.cell(cell.id) is cell
    assert STUDY.cell(cell.id[:-3]) is cell
    with pytest.raises(StudyError, match="matches 4 cells"):
        STUDY.cell("b16")
    with pytest.raises(StudyError, match="nearest"):
        STUDY.cell("b17-sigmoid")


def test_set_changes_every_cell_and_with_it_the_ids():
    changed = select(STUDY, settings=["optimizer.b2=0.999"])
    assert {cell.optimizer.b2 for cell in changed.cells} == {0.999}
    assert not {c.id for c in changed.cells} & {c.id for c in CELLS}


def test_set_reads_json_and_takes_the_rest_as_text():
    changed = select(
        STUDY,
        settings=["optimizer.warmup_percent=5", "optimizer.clip_norm=null", "data.dataset=other"],
    )
    cell = changed.cells[0]
    assert (cell.optimizer.warmup_percent, cell.optimizer.clip_norm) == (5.0, None)
    assert cell.data.dataset == "other"


def test_set_of_how_cells_run_leaves_their_ids():
    changed = select(STUDY, settings=["execution.wandb=false", "execution.data_root=/d"])
    assert changed.cells == CELLS
    execution = changed.execution_of(changed.cells[0])
    assert (execution.wandb, execution.data_root) == (False, "/d")


def test_cells_that_set_made_equal_are_run_once():
    assert len(select(STUDY, settings=["batch_size=32"]).cells) == 4


@pytest.mark.parametrize(
    "setting", ["optimizer.b3=1", "optimizer.b2=2", "b2", "=1", "execution.x=1", "loss.t_init=a"]
)
def test_a_wrong_set_is_one_line(setting):
    with pytest.raises((CellError, StudyError)) as caught:
        select(STUDY, settings=[setting])
    assert "--set" in one_line(caught)


@pytest.mark.parametrize(
    ("only", "count"),
    [
        (["b16"], 4),
        (["b16", "b256-*"], 8),
        (["*softmax*"], 6),
        (["batch_size=512"], 4),
        (["batch_size=16,512"], 8),
        (["batch_size!=16,512"], 4),
        (["batch_size=512", "loss.kind=sigmoid"], 2),
        (["batch_size=512", "*-s1-*"], 2),
        (["loss.b_init=-10"], 6),
    ],
)
def test_only_keeps_the_cells_that_match(only, count):
    assert len(select(STUDY, only=only).cells) == count


@pytest.mark.parametrize("only", ["c1*", "batch_size=17", "batch=16", "optimizer=adam"])
def test_an_only_that_matches_nothing_is_one_line(only):
    with pytest.raises(StudyError) as caught:
        select(STUDY, only=[only])
    assert "--only" in one_line(caught)


def test_set_comes_before_only():
    chosen = select(STUDY, settings=["seed=5"], only=["seed=5"])
    assert {cell.seed for cell in chosen.cells} == {5}
