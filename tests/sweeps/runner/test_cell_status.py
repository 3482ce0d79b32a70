"""Where a cell stands is read from its record and from nothing else."""

from __future__ import annotations

import pytest

from study.config import Budget, Cell
from study.records.metrics_log import read_progress
from study.records.record import Progress, Record, write_failure
from study.records.storage import unlink
from sweeps.runner import cell_status, marks
from sweeps.runner.attempts import Attempt, Attempts
from sweeps.runner.cell_status import CellStatus, StudyState
from sweeps.runner.lease import Lease
from sweeps.runner.store import LEASE, Store, open_store
from sweeps.study import Study

CELL = Cell(batch_size=16, budget=Budget(steps=10))
STUDY = Study(name="s", question="Q?", cells=(CELL,))


def begin(folder, step: int) -> Record:
    record = Record(folder / CELL.id)
    record.begin({"hash": CELL.hash}, seen=Progress(0, 0, 0))
    if step:
        record.row(Progress(step, step * 16, step * 256))
    return record


def held(store: Store) -> Lease:
    version = store.list(CELL.id).get(CELL.id, {}).get(LEASE)
    return Lease.take(store, CELL.id, "", version)


@pytest.fixture
def read(root):
    def read() -> CellStatus:
        (status,) = cell_status.read(STUDY, root)
        assert cell_status.read_cell(CELL, root / "s" / CELL.id) == status
        return status

    return read


def test_without_a_folder_a_cell_is_pending(read):
    assert read().state == "pending" and read().runnable
    assert cell_status.exit_code([read()]) == 3


def test_with_rows_and_no_owner_it_was_interrupted(read, folder):
    begin(folder, 3).close()
    assert read().state == "interrupted"
    assert read().progress.examples_seen == 48


def test_with_a_live_lease_it_runs_whatever_else_is_recorded(read, folder):
    begin(folder, 3).close()
    write_failure(folder / CELL.id, error="old")
    with held(open_store(folder)) as lease:
        assert (read().state, read().owner, read().error) == ("running", lease.owner, None)
        assert read().claimed is None and read().runnable
        marks.cancel(folder / CELL.id)
        assert read().state == "running"  # it saves what it has
    assert read().state == "cancelled"
    assert cell_status.exit_code([read()]) == 0
    marks.retry(read())
    assert read().state == "interrupted"


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_with_its_last_file_it_is_finished(read, folder, status):
    begin(folder, 10).finish(Progress(10, 160, 2560), status=status, summary={"a": 1})
    write_failure(folder / CELL.id, error="cannot be")
    marks.cancel(folder / CELL.id)
    with held(open_store(folder)):
        assert (read().state, read().done["summary"]) == (status, {"a": 1})
    assert read().finished and not read().runnable
    assert read().progress.step == 10
    assert cell_status.exit_code([read()]) == 0


def test_a_failed_cell_says_why(read, folder):
    write_failure(folder / CELL.id, error="no luck")
    failed = Attempt(worker="w", host="h", claimed=1.0, ended=2.0, outcome="raised", error="bad")
    Attempts((failed,) * 2).save(open_store(folder), CELL.id)
    assert (read().state, read().error) == ("interrupted", "no luck")  # it is tried again
    Attempts((failed,) * 3).save(open_store(folder), CELL.id)
    assert (read().state, read().error) == ("failed", "bad (attempt 3 of 3)")
    assert cell_status.exit_code([read()]) == 1


def test_since_when_and_how_long_a_cell_runs(read, folder):
    record = begin(folder, 0)
    for step, at in ((2, 1000.0), (4, 1001.0)):
        record.row(Progress(step, step * 16, step * 256), time=at)
    attempt = Attempt(worker="w", host="h", claimed=123.0)
    Attempts((attempt,)).save(open_store(folder), CELL.id)
    record.close()
    with held(open_store(folder)):
        assert read().claimed == 123.0
        assert read().progress.examples_per_second == 32.0
        assert read().seconds_left == (160 - 64) / 32.0
    assert read().claimed is None and read().seconds_left is None


# --- states that are kept up to date -------------------------------------------------------------


@pytest.fixture
def counted(folder):
    """A state that counts what it reads, as (cells whose rows it read, other files)."""
    rows: list[str] = []
    files: list[tuple[str, str]] = []

    def read_rows(path):
        rows.append(path.name)
        return read_progress(path)

    cells = [Cell(batch_size=16, seed=seed, budget=Budget(steps=10)) for seed in range(3)]
    store = open_store(folder)
    read_many = store.read_many

    def read_files(names):
        names = list(names)
        files.extend(names)
        return read_many(names)

    store.read_many = read_files
    state = StudyState(cells, folder, store=store, read_progress=read_rows)

    def refresh():
        rows.clear()
        files.clear()
        return [s.state for s in state.refresh()], len(rows), len(files)

    refresh.state, refresh.cells = state, cells
    return refresh


def record_of(folder, cell) -> Record:
    record = Record(folder / cell.id)
    record.begin({"hash": cell.hash}, seen=Progress(0, 0, 0))
    return record


def test_a_refresh_reads_only_what_changed(folder, counted):
    one, two, three = counted.cells
    assert counted() == (["pending"] * 3, 0, 0)
    record_of(folder, two).close()
    record = record_of(folder, one)
    assert counted() == (["interrupted", "interrupted", "pending"], 2, 0)
    assert counted() == (["interrupted", "interrupted", "pending"], 0, 0)
    record.finish(Progress(10, 160, 2560), status="done", summary={})
    assert counted() == (["done", "interrupted", "pending"], 0, 1)
    write_failure(folder / three.id, error="x")
    assert counted() == (["done", "interrupted", "failed"], 0, 1)
    assert counted() == (["done", "interrupted", "failed"], 0, 0)
    marks.retry(counted.state.refresh()[2])
    assert counted()[0] == ["done", "interrupted", "pending"]


def test_a_cell_that_ran_between_two_looks_is_read_again(folder, counted):
    cell = counted.cells[0]
    record = record_of(folder, cell)
    record.close()
    assert counted()[0][0] == "interrupted"
    store = open_store(folder)
    Attempts((Attempt(worker="w", host="h", claimed=1.0, outcome="preempted"),)).save(
        store, cell.id
    )
    record = record_of(folder, cell)
    record.row(Progress(5, 80, 5))
    record.close()
    assert counted()[1] == 1
    assert counted.state.refresh()[0].progress.step == 5


def test_an_end_that_is_deleted_by_hand_is_noticed(folder, counted, monkeypatch):
    cell = counted.cells[0]
    record_of(folder, cell).finish(Progress(10, 160, 2560), status="done", summary={})
    assert counted()[0][0] == "done"
    unlink(folder / cell.id / "DONE.json")
    monkeypatch.setattr(cell_status, "_FINISHED_S", 0.0)
    assert counted()[0][0] == "interrupted"


def test_one_cell_may_be_refreshed_alone(folder, counted):
    record_of(folder, counted.cells[1]).close()
    (status,) = counted.state.refresh(counted.cells[1].id)
    assert (status.cell, status.state) == (counted.cells[1], "interrupted")
    assert counted()[0] == ["pending", "interrupted", "pending"]


def test_states_are_counted_in_one_order():
    statuses = [
        CellStatus(cell=CELL, folder=None, state=state)
        for state in ("pending", "running", "done", "pending")
    ]
    assert list(cell_status.count(statuses).items()) == [
        ("done", 1),
        ("running", 1),
        ("pending", 2),
    ]
