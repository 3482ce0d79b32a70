"""Workers claim cells in one order, and never two of them the same cell."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from study.config import Budget, Cell, Data, Execution, branch_from
from study.records.record import Progress, Record, write_failure
from study.records.storage import is_bucket, resolve
from sweeps.planning.plan import estimate_seconds
from sweeps.registry import load_study
from sweeps.runner import attempts, cell_status, marks
from sweeps.runner.attempts import Attempt, Attempts
from sweeps.runner.cell_status import CellStatus, StudyState
from sweeps.runner.claims import Claimer, Rank, in_order, ranks
from sweeps.runner.lease import Lease
from sweeps.runner.store import ATTEMPTS, FAILED, LEASE, open_store
from sweeps.selection import select
from sweeps.study import Study
from tests.sweeps.studies import study_on

CELLS = [Cell(batch_size=16, seed=seed, budget=Budget(steps=10)) for seed in range(6)]


def pending(cells, seen=()) -> list[CellStatus]:
    seen = dict(seen)
    return [
        CellStatus(
            cell=c,
            folder=None,
            state="pending",
            progress=cell_status.CellProgress(examples_seen=seen.get(c.id, 0)),
        )
        for c in cells
    ]


def order(study: Study, **more) -> list[str]:
    return [s.cell.id for s in in_order(pending(study.cells), ranks(study, **more))]


# --- the order -----------------------------------------------------------------------------------


def test_whole_seeds_first_and_within_a_seed_the_long_cells():
    cells = tuple(
        Cell(batch_size=b, seed=seed, budget=Budget(examples=8192))
        for b in (64, 16, 4096)
        for seed in (1, 0)
    )
    of = Study(name="s", question="?", cells=cells)
    ordered = [of.cell(cell_id) for cell_id in order(of)]
    assert [cell.seed for cell in ordered] == [0, 0, 0, 1, 1, 1]
    costs = [cell_status.cost(cell) for cell in ordered[:3]]
    assert costs == sorted(costs, reverse=True)


def test_within_a_seed_a_worker_prefers_cells_whose_program_it_has_compiled(tmp_path):
    cells = [
        Cell(batch_size=b, seed=seed, budget=Budget(examples=8192))
        for seed in (0, 1)
        for b in (16, 64, 4096)
    ]
    of = Study(name="s", question="?", cells=tuple(cells))
    long, middle, short = order(of)[:3]
    a, b = (
        Claimer(StudyState(of.cells, tmp_path, for_claims=True), ranks(of), worker=name)
        for name in "ab"
    )
    claimed = [claimer.next().claim.status.cell for claimer in (a, b, a, b, a)]
    assert [cell.id for cell in claimed[:3]] == [long, middle, short]
    assert [cell.seed for cell in claimed[3:]] == [1, 1]
    sizes = [cell.batch_size for cell in claimed]
    assert sizes[3:] == [sizes[1], sizes[0]]  # b has compiled the program of `middle` alone


def test_a_worker_prefers_a_program_that_nobody_is_compiling(tmp_path, monkeypatch):
    """Whether it sees who took a cell of the program, or finds the cell just taken."""
    cells = tuple(
        Cell(batch_size=b, budget=Budget(examples=n))
        for b, n in ((16, 8192), (16, 4096), (16, 2048), (64, 1024))
    )
    of = Study(name="s", question="?", cells=cells)
    assert order(of) == [cell.id for cell in cells]
    seen, late, last = (
        Claimer(StudyState(cells, tmp_path, for_claims=True), ranks(of), worker=name)
        for name in ("seen", "late", "last")
    )
    monkeypatch.setattr(random.Random, "randrange", lambda *_: 0)
    early = late._state.refresh()
    assert seen.next().claim.status.cell == cells[0]
    with monkeypatch.context() as patch:
        patch.setattr(late._state, "refresh", lambda: early)
        other = late.next().claim
    assert other.status.cell == cells[3]
    other.lease.release()
    assert last.next().claim.status.cell == cells[3]
    record = Record(tmp_path / cells[1].id)  # of which the program is in the cache now
    record.begin({"hash": cells[1].hash}, seen=Progress(0, 0, 0))
    record.finish(Progress(256, 4096, 256), status="done", summary={})
    late._compiled.clear()
    assert late.next().claim.status.cell == cells[2]


def test_priority_goes_before_length_and_first_before_priority():
    of = study_on(None, None, None)
    short, middle, long = (c.id for c in of.cells)
    assert order(of) == [long, middle, short]
    execution = lambda cell: Execution(priority=int(cell.id == middle))
    ranked = Study(name="s", question="?", cells=of.cells, execution=execution)
    assert order(ranked) == [middle, long, short]
    assert order(ranked, first=[short]) == [short, middle, long]
    assert order(ranked, first=[short, long]) == [short, long, middle]


def test_a_cell_that_is_nearly_done_is_short():
    of = study_on(None, None)
    short, long = of.cells
    statuses = pending(of.cells, {long.id: long.examples - 16})
    assert [s.cell for s in in_order(statuses, ranks(of))] == [short, long]


def test_the_longest_cells_come_first_by_time_on_slices_of_all_seeds():
    table = select(load_study("table-8"), settings=['execution.slice="v4-32"'])
    slow = min(table.cells, key=lambda c: (-c.examples, c.batch_size))  # fewest FLOPs, most steps
    cells = tuple(dataclasses.replace(c, seed=seed) for seed in (0, 1) for c in table.cells)
    both = dataclasses.replace(table, cells=cells)
    seconds = estimate_seconds(both, {c.id for c in cells})
    ordered = [seconds[cell_id] for cell_id in order(both)]
    assert ordered == sorted(ordered, reverse=True)
    assert ordered[2] == seconds[slow.id]  # after the largest batch of each seed


def test_where_one_cell_cannot_be_estimated_the_order_is_by_operations():
    odd = study_on("v4-16", "v4-16")
    unknown = dataclasses.replace(odd.cells[0], data=Data(dataset="absent", tokenizer="who"))
    mixed = dataclasses.replace(
        odd, cells=(*odd.cells, unknown), execution=lambda cell: Execution(slice="v4-16")
    )
    assert {rank.seconds for rank in ranks(mixed).values()} == {0.0}
    assert mixed.cell(order(mixed)[0]).steps == 11


# --- claims --------------------------------------------------------------------------------------


@pytest.fixture
def claimer(folder, quick):
    """A worker of its own that claims `cells`."""

    def claimer(cells=CELLS, *, store=None, worker="w", seed=None) -> Claimer:
        store = store or quick(folder, stale_s=60.0)
        state = StudyState(cells, folder, store=store, for_claims=True)
        order = {cell.id: Rank(seed=cell.seed) for cell in cells}
        return Claimer(state, order, worker=worker, seed=seed)

    return claimer


def finish(folder, cell, step=10) -> None:
    record = Record(folder / cell.id)
    record.begin({"hash": cell.hash}, seen=Progress(0, 0, 0))
    record.finish(Progress(step, step * 16, step), status="done", summary={})


def test_a_claim_is_the_first_free_cell_and_an_attempt_in_its_record(claimer, folder, quick):
    one, other = claimer(), claimer(worker="v")
    first = one.next()
    assert (first.claim.status.cell, first.left) == (CELLS[0], 6)
    store = quick(folder)
    (attempt,) = Attempts.parse(store.read(CELLS[0].id, ATTEMPTS)).all
    assert (attempt.worker, attempt.step, attempt.outcome) == ("w", 0, None)
    second = other.next()
    assert (second.claim.status.cell, second.left) == (CELLS[1], 6)
    with first.claim.lease as lease:
        assert isinstance(lease, Lease)
        assert not other.claim(first.claim.status)
    assert other.next().claim.status.cell == CELLS[0]


def test_a_branch_waits_for_its_parent(claimer, folder):
    parent = CELLS[0]
    branch = branch_from(parent, percent=50, batch_size=8, budget=Budget(steps=2))
    worker = claimer([branch, parent])
    first = worker.next()
    assert (first.claim.status.cell, first.left) == (parent, 2)
    finish(folder, parent)
    first.claim.lease.release()
    assert worker.next().claim.status.cell == branch
    assert claimer([branch], worker="v").next().left == 1  # alone it waits for nobody


def test_workers_that_start_together_hold_each_cell_once(claimer, folder):
    count = len(CELLS)

    def drain(k) -> list[str]:
        worker, claims = claimer(worker=str(k), seed=k), []
        while len(claims) < count and (found := worker.next()).left:
            if found.claim is None:
                if all(s.state == "running" for s in worker._state.refresh()):
                    break
                continue
            claims.append(found.claim.status.cell.id)
        return claims

    with ThreadPoolExecutor(4) as pool:
        held = Counter(cell_id for claims in pool.map(drain, range(4)) for cell_id in claims)
    assert held == Counter(cell.id for cell in CELLS)


def test_who_finds_a_cell_just_taken_skips_ahead_at_random(claimer, folder, monkeypatch):
    """A listing in which every cell is free is handed to workers that come too late."""
    cells = [Cell(batch_size=16, seed=seed, budget=Budget(steps=10)) for seed in range(40)]
    tries: list[list[int]] = []
    for seed in range(3):
        late = claimer(cells, seed=seed)
        tries.append([])

        def lose(status, tried=tries[-1]) -> None:
            tried.append(status.cell.seed)

        monkeypatch.setattr(late, "_claim", lose)
        assert late.next().claim is None
    assert all(tried[0] == 0 and len(tried) < 20 for tried in tries)
    assert len({tuple(tried) for tried in tries}) > 1
    for tried in tries:  # at most twice as far after each loss
        steps = [b - a for a, b in itertools.pairwise(tried)]
        assert all(1 <= step <= 2**n for n, step in enumerate(steps, 1))


def test_a_listing_older_than_the_last_owners_end_runs_no_cell_again(claimer, folder):
    """A cell is done, cancelled, or at another attempt since, and its lease is free again."""
    late, other = claimer(CELLS[:3]), claimer(CELLS[:3])
    listing = late._state.refresh()
    finish(folder, CELLS[0])
    marks.cancel(folder / CELLS[1].id)
    begun = other.claim(other._state.refresh()[2])
    begun.lease.release()
    for status in listing:
        assert late._claim(dataclasses.replace(status, lease=_free(folder, status))) is None
    assert all(not v.size for v in _leases(folder).values())
    assert len(Attempts.parse(open_store(folder).read(CELLS[2].id, ATTEMPTS)).all) == 1
    found = late.next()
    assert (found.claim.status.cell, found.left) == (CELLS[2], 1)


def _free(folder, status):
    """In a folder a lease that was taken and freed is missing as before."""
    return open_store(folder).list(status.cell.id)[status.cell.id].get(LEASE)


def _leases(folder):
    return {c: f[LEASE] for c, f in open_store(folder).list().items() if LEASE in f}


def test_a_torn_end_is_no_end(claimer, folder, quick):
    """As a power cut may leave it; the cell is trained, and its end written, again."""
    if is_bucket(folder):
        pytest.skip("an object is whole")
    finish(folder, CELLS[0])
    (folder / CELLS[0].id / "DONE.json").write_bytes(b"")
    assert claimer(CELLS[:1]).next().claim is not None


def test_a_cell_that_waits_is_left_until_its_time(claimer, folder, quick, monkeypatch):
    monkeypatch.setattr(attempts, "BACKOFF_S", 3600.0)
    store = quick(folder)
    failed = Attempt(worker="w", host="h", claimed=1.0, outcome="raised", error="x")
    at = time.time()
    Attempts((dataclasses.replace(failed, ended=at),)).save(store, CELLS[0].id)
    worker = claimer(CELLS[:1])
    found = worker.next()
    assert (found.claim, found.left) == (None, 1)


def test_the_end_of_a_failed_cell_that_nobody_recorded_is_recorded(claimer, folder, quick):
    """Its worker died at the last attempt: nobody knows but who looks next."""
    store = quick(folder)
    lost = Attempt(worker="w", host="h", claimed=1.0, outcome="lost", ended=2.0)
    Attempts((lost,) * 4).begin(Attempt(worker="w", host="h", claimed=3.0)).save(store, CELLS[0].id)
    worker = claimer(CELLS[:2])
    assert worker.next().claim.status.cell == CELLS[1]
    assert b"without getting further" in store.read(CELLS[0].id, FAILED)
    assert [a.outcome for a in Attempts.parse(store.read(CELLS[0].id, ATTEMPTS)).all] == [
        "lost"
    ] * 5
    (status, _) = worker._state.refresh()
    assert (status.state, status.unrecorded) == ("failed", False)


def test_the_end_of_a_cell_that_a_worker_wrote_before_it_died_is_that_of_an_error(
    claimer, folder, quick
):
    store = quick(folder)
    Attempts().begin(Attempt(worker="w", host="h", claimed=1.0)).save(store, CELLS[0].id)
    write_failure(folder / CELLS[0].id, error="no luck")
    claim = claimer(CELLS[:1]).next().claim
    assert [(a.outcome, a.error) for a in claim.attempts.all] == [
        ("raised", "no luck"),
        (None, None),
    ]


def test_a_cell_whose_record_cannot_be_written_keeps_no_other_from_being_claimed(
    claimer, folder, quick, monkeypatch
):
    store = quick(folder)
    swap = store.swap

    def broken(cell, name, content, expected):
        if cell == CELLS[0].id:
            raise OSError(errno.EIO, "Input/output error")
        return swap(cell, name, content, expected)

    monkeypatch.setattr(store, "swap", broken)
    monkeypatch.setattr(random.Random, "randrange", lambda *_: 0)
    worker = claimer(CELLS[:2], store=store)
    assert worker.next().claim.status.cell == CELLS[1]
    with pytest.raises(OSError, match="Input/output"):  # there is nothing else to do
        worker.next()


def test_a_claim_that_cannot_be_recorded_is_given_back(claimer, folder, quick, monkeypatch):
    store = quick(folder)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(OSError, match="No space"):
        claimer(CELLS[:1], store=store).next()
    assert not store.read(CELLS[0].id, LEASE)
    assert claimer(CELLS[:1]).next().claim is not None


def test_train_forgives_and_takes_what_is_cancelled(claimer, folder, quick):
    store = quick(folder)
    failed = Attempt(worker="w", host="h", claimed=1.0, outcome="invalid", ended=2.0)
    Attempts((failed,)).save(store, CELLS[0].id)
    marks.cancel(folder / CELLS[0].id)
    worker = claimer(CELLS[:1])
    assert worker.next().claim is None
    claim = worker.claim(worker._state.refresh()[0])
    assert len(claim.attempts.all) == 2 and len(claim.attempts.counted) == 1
    finish(folder, CELLS[1])
    done = claimer(CELLS[1:2])
    assert done.claim(dataclasses.replace(done._state.refresh()[0], lease=None)) is None


def test_a_claim_reads_of_a_bucket_only_what_it_needs(gcs, quick):
    """Not how cells ended, nor how far those are that others train."""
    bucket = gcs.bucket()
    folder = resolve(f"gs://{bucket}/runs/s")
    for cell in CELLS[:2]:
        finish(folder, cell)
    store, reads = quick(folder, stale_s=60.0), []
    state = StudyState(
        CELLS, folder, store=store, for_claims=True, read_progress=lambda f: reads.append(f)
    )
    others = StudyState(CELLS, folder, store=store, for_claims=True)
    other = Claimer(others, {c.id: Rank(seed=c.seed) for c in CELLS}, worker="o")
    held = other.next().claim
    Record(folder / held.status.cell.id).begin({"hash": "x"}, seen=Progress(0, 0, 0))
    before = gcs.counts(bucket)
    states = [s.state for s in state.refresh()]
    assert states == ["done", "done", "running", "pending", "pending", "pending"]
    assert reads == []
    assert gcs.counts(bucket) - before == {"list": 1}
