"""Where a cell stands is told by its files alone; the budgets of its tries are kept apart."""

from __future__ import annotations

import pytest

from study.config import Budget, Cell
from study.records.record import Progress, Record, RecordError, write_failure
from sweeps.runner import cell_status as ledger
from sweeps.runner.job_queue import CRASHES, LONGEST, TRIES, Queue
from sweeps.runner.lease_file import LEASE, Lease
from sweeps.study import Study

CELL = Cell(batch_size=16, budget=Budget(steps=10))
STUDY = Study(name="s", question="Q?", cells=(CELL,))


def record(tmp_path, step: int, **about) -> Record:
    made = Record(tmp_path / "s" / CELL.id)
    made.begin({"hash": CELL.hash, **about}, seen=Progress(0, 0, 0))
    made.row(Progress(step, step * 16, step * 256))
    return made


def read(tmp_path) -> ledger.Entry:
    return ledger.read(STUDY, tmp_path)[0]


def test_without_a_folder_a_cell_waits(tmp_path):
    assert read(tmp_path).state == "waiting"
    assert ledger.exit_code([read(tmp_path)]) == 3


def test_with_rows_and_nobody_at_work_it_was_interrupted(tmp_path):
    record(tmp_path, 3).close()
    assert read(tmp_path).state == "interrupted"
    assert read(tmp_path).progress.examples_seen == 48


def test_with_a_live_lease_it_runs_whatever_else_is_there(tmp_path):
    record(tmp_path, 3).close()
    write_failure(tmp_path / "s" / CELL.id, error="old")
    with Lease.acquire(tmp_path / "s" / CELL.id / LEASE):
        assert read(tmp_path).state == "running"
        assert read(tmp_path).error is None
    assert read(tmp_path).state == "failed"
    assert ledger.exit_code([read(tmp_path)]) == 1


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_with_its_last_file_it_is_over(tmp_path, status):
    record(tmp_path, 10).finish(Progress(10, 160, 2560), status=status, summary={})
    write_failure(tmp_path / "s" / CELL.id, error="cannot be")
    assert read(tmp_path).state == status
    assert ledger.exit_code([read(tmp_path)]) == 0


def test_a_folder_of_another_cell_is_refused_in_one_line(tmp_path):
    record(tmp_path, 1, **{"hash": "0" * 64}).close()
    with pytest.raises(RecordError, match="another cell") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def entries(tmp_path, cells) -> list[ledger.Entry]:
    return [ledger.entry(cell, tmp_path / cell.id) for cell in cells]


def test_whole_seeds_first_and_within_a_seed_the_long_cells(tmp_path):
    cells = [
        Cell(batch_size=b, seed=seed, budget=Budget(examples=8192))
        for b in (64, 16, 4096)
        for seed in (1, 0)
    ]
    order = [job.entry.cell for job in Queue(entries(tmp_path, cells), backoff=1).ready(0.0)]
    assert [cell.seed for cell in order] == [0, 0, 0, 1, 1, 1]
    costs = [ledger.cost(cell) for cell in order[:3]]
    assert costs == sorted(costs, reverse=True)


def test_a_cell_that_raises_is_tried_three_times_with_growing_waits(tmp_path):
    queue = Queue(entries(tmp_path, [CELL]), backoff=1.0)
    waits = []
    for _ in range(TRIES - 1):
        (job,) = queue.ready(1e9)
        queue.take(job)
        assert queue.raised(job, now=100.0)
        waits.append(job.not_before - 100.0)
        assert queue.ready(100.0) == []
    (job,) = queue.ready(1e9)
    queue.take(job)
    assert not queue.raised(job, now=100.0)
    assert waits == [1.0, 2.0]
    assert len(queue) == 0


def test_preemption_is_without_limit_while_the_cell_gets_further(tmp_path):
    queue = Queue(entries(tmp_path, [CELL]), backoff=1.0)
    made = record(tmp_path, 0)
    for step in range(1, 10 * CRASHES):
        (job,) = queue.ready(1e9)
        queue.take(job)
        made.row(Progress(step, step * 16, step))
        job.entry = ledger.entry(CELL, tmp_path / "s" / CELL.id)
        assert queue.crashed(job, now=0.0)
        assert job.not_before == 1.0
    made.close()


def test_a_worker_that_dies_at_the_same_place_again_and_again_is_given_up(tmp_path):
    queue = Queue(entries(tmp_path, [CELL]), backoff=20.0)
    (job,) = queue.ready(0.0)
    waits = []
    for tries in range(1, CRASHES + 1):
        queue.take(job)
        again = queue.crashed(job, now=0.0)
        assert again == (tries < CRASHES)
        waits.append(job.not_before)
    assert max(waits) == LONGEST
