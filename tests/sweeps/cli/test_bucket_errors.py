"""What a bucket's server refuses is one line; what passes, gcsfs tries again by itself."""

from __future__ import annotations

import pytest

from analysis.records.record import content
from study.config import Budget, Cell
from study.records.record import Progress, Record
from study.records.storage import (
    RecordError,
    listdir,
    read,
    unlink,
    write,
    write_new,
)
from sweeps.runner import cell_status, marks
from sweeps.runner.lease import Owner, acquire
from sweeps.runner.store import DONE, open_store

CELL = Cell(batch_size=16, budget=Budget(steps=10))


@pytest.mark.parametrize("fault", [503, 500, 429, 408, 0])
def test_a_transient_fault_is_tried_again_by_gcsfs(gate, fault):
    path = gate.root / "s/x/a"
    for call, answer in (
        (lambda: write(path, b"1"), None),
        (lambda: write_new(path, b"2"), False),
        (lambda: read(path), b"1"),
        (lambda: listdir(path.parent), [path]),
        (lambda: content(path), b"1"),
        (lambda: unlink(path), None),
    ):
        gate.faults[:] = [fault, fault]
        assert call() == answer
        assert gate.faults == []


@pytest.mark.parametrize("fault", [400, 401, 403, 503])
def test_what_is_refused_is_one_line_that_names_bucket_and_action(gate, fault):
    folder = gate.root / "s" / "x"
    gate.always = fault
    calls = {
        "write": [
            lambda: write(folder / "a", b"1"),
            lambda: write_new(folder / "a", b"1"),
            lambda: unlink(folder / "a"),
            lambda: marks.cancel(folder),
            lambda: acquire(open_store(folder.parent), folder.name, Owner.here(), None),
        ],
        "read": [
            lambda: read(folder / "a"),
            lambda: listdir(folder),
            lambda: open_store(folder.parent).read(folder.name, DONE),
            lambda: open_store(folder.parent).list(),
            lambda: cell_status.read_cell(CELL, folder),
            lambda: Record(folder).begin({"hash": "a"}, seen=Progress(0, 0, 0)),
            lambda: content(folder / "a"),
        ],
    }
    for action, calls_of_action in calls.items():
        for call in calls_of_action:
            with pytest.raises(RecordError) as error:
                call()
            assert str(error.value).startswith(f"cannot {action} {folder.parent}")
            assert "\n" not in str(error.value)


def test_the_command_line_says_it_in_one_line(gate, study, tmp_path):
    (tmp_path / "own.py").write_text(
        "from study.config import Cell\nfrom sweeps.study import Study\n"
        "def study():\n    return Study(name='s', question='?', cells=(Cell(batch_size=16),))\n"
    )
    for verb in ("status", "cancel", "run", "figures", "claims"):
        gate.faults[:] = [200]  # the bucket itself answers, and lets nobody in
        gate.always = 403
        code, out, err = study(verb, "own.py", "--root", str(gate.root))
        assert (code, out, err.count("\n")) == (2, "", 1), verb
        assert str(gate.root) in err
