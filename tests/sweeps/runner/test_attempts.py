"""A cell that fails is tried again a few times; no restart of anything renews its budgets."""

from __future__ import annotations

import time

import pytest

from study.config import Budget, Cell
from study.records.record import FAILED, Progress, Record, write_failure
from sweeps.runner import attempts as records
from sweeps.runner import marks
from sweeps.runner.attempts import (
    LOST,
    MAX_BACKOFF_S,
    PREEMPTED,
    RAISED,
    Attempt,
    Attempts,
    judge,
)
from sweeps.runner.cell_status import StudyState, close_lost
from sweeps.runner.claims import Claimer
from sweeps.runner.lease import Owner, acquire
from sweeps.runner.store import ATTEMPTS, LEASE, Version

CELL = Cell(batch_size=16, budget=Budget(steps=100))


def attempt(outcome=None, *, step=0, claimed=100.0, ended=None, error=None) -> Attempt:
    return Attempt(
        worker="w",
        host="h",
        claimed=claimed,
        step=step,
        outcome=outcome,
        ended=(claimed + 1) if outcome and ended is None else ended,
        error=error,
    )


@pytest.mark.parametrize("outcome", ["done", "diverged", "stopped", "cancelled", "no space"])
def test_an_end_that_is_no_failure_costs_nothing(outcome):
    assert judge([attempt(outcome)] * 50, 0).error is None
    assert judge([attempt(outcome)], 0).wait_until == 0.0
    assert judge([], 0).error is None


def test_a_cell_that_raises_is_tried_three_times_whatever_it_reached():
    attempts = [attempt("raised", step=s, error="no luck") for s in range(RAISED)]
    for n in range(1, RAISED):
        assert judge(attempts[:n], n).error is None
        assert judge(attempts[:n], n).tries == (n, RAISED)
    assert judge(attempts, RAISED).error == "no luck (attempt 3 of 3)"
    mixed = [attempts[0], attempt("preempted"), attempts[1], attempt("stopped")]
    assert judge(mixed, 5).error is None
    assert judge([*mixed, attempts[2]], 5).error is not None


def test_invalid_input_is_not_tried_again():
    assert judge([attempt("invalid", error="batch_size: no")], 0).error == "batch_size: no"


@pytest.mark.parametrize(("outcome", "budget"), [("lost", LOST), ("preempted", PREEMPTED)])
def test_a_machine_that_is_lost_at_the_same_place_is_given_up(outcome, budget):
    attempts = [attempt(outcome) for _ in range(budget)]
    assert judge(attempts[:-1], 0).error is None
    assert judge(attempts, 0).error
    assert judge(attempts, 1).error is None  # it got further in the last one
    stuck = [attempt("done", step=0), *(attempt(outcome, step=7) for _ in range(budget))]
    assert judge(stuck, 7).error
    assert judge(stuck, 8).error is None


@pytest.mark.parametrize("outcome", ["lost", "preempted"])
def test_machines_may_be_lost_without_limit_while_the_cell_gets_further(outcome):
    attempts = [attempt(outcome, step=s) for s in range(100)]
    verdict = judge(attempts, 100)
    assert verdict.error is None and verdict.tries[0] == 1
    assert judge(attempts, 99).tries[0] == 2


def test_rows_that_a_restart_made_again_are_no_progress():
    """The last checkpoint was at step 5, and the machine is lost at step 8 each time."""
    attempts = [attempt("lost", step=s) for s in (0, 8, 6, 8)]
    assert judge(attempts, 8).tries == (4, LOST)


def test_waits_double_up_to_a_minute_and_ignore_a_clock_that_is_ahead(monkeypatch):
    monkeypatch.setattr(records, "BACKOFF_S", 4.0)
    now = time.time()
    waits = [
        judge([attempt("lost", claimed=now - 1)] * n, 0).wait_until - now for n in range(1, LOST)
    ]
    assert waits == pytest.approx([4, 8, 16, 32])
    many = [attempt("preempted", claimed=now - 1)] * (PREEMPTED - 1)
    assert judge(many, 0).wait_until - now == pytest.approx(MAX_BACKOFF_S)
    ahead = [attempt("raised", claimed=now + 3600)]
    assert judge(ahead, 0).wait_until - now == pytest.approx(4, abs=1)


def test_a_torn_or_foreign_file_has_no_attempts():
    for content in (None, b"", b'{"attempts": [{"wor', b"[]", b'{"attempts": [{"x": 1}]}', b"null"):
        assert Attempts.parse(content) == Attempts()


def test_what_is_saved_is_read_again(folder, quick):
    store = quick(folder)
    attempts = Attempts().begin(attempt("lost", step=3)).begin(attempt()).clear().begin(attempt())
    attempts.save(store, "x")
    assert Attempts.parse(store.read("x", ATTEMPTS)) == attempts
    assert len(attempts.counted) == 1


def test_an_end_is_recorded_once():
    running = Attempts().begin(attempt())
    ended = running.end("raised", at=5.0004, error="no luck")
    assert (ended.all[0].outcome, ended.all[0].ended) == ("raised", 5.0)
    assert ended.end("lost", at=9.0) is ended
    assert Attempts().end("lost", at=9.0) == Attempts()


# --- what the next worker finds ------------------------------------------------------------------


def test_a_worker_that_died_left_an_attempt_that_was_lost_at_its_last_heartbeat():
    running = Attempts().begin(attempt(claimed=100.0))
    closed = close_lost(running, None, Version("t", 5, 160.0))
    assert (closed.all[0].outcome, closed.all[0].ended) == ("lost", 160.0)
    assert close_lost(closed, None, None) is closed
    assert close_lost(running, None, None).all[0].ended == 100.0  # the same at every look


def test_a_worker_that_died_after_it_wrote_why_the_cell_failed_left_one_that_raised():
    running = Attempts().begin(attempt("lost")).begin(attempt(claimed=100.0))
    closed = close_lost(running, {"error": "no luck", "time": 150.0}, Version("t", 5, 160.0))
    assert closed.all[1] == attempt("raised", ended=150.0, error="no luck")
    before = close_lost(running, {"error": "no luck", "time": 50.0}, Version("t", 5, 160.0))
    assert before.all[1].outcome == "lost"  # that is why an earlier one ended


def claimer(folder, quick) -> Claimer:
    """Of a new worker: everything was started again."""
    state = StudyState([CELL], folder, store=quick(folder), for_claims=True)
    return Claimer(state, {}, worker="new")


def die(store, claim) -> None:
    """As a killed process of this machine leaves its lease."""
    mine = Owner.here()
    dead = Owner(**{**vars(mine), "started": mine.started - 1})
    claim.lease.release()
    acquire(store, CELL.id, dead, store.list(CELL.id)[CELL.id].get(LEASE))


def claim_when_free(folder, quick, wait_for):
    """What a new worker gets, once it has seen that the owner is dead; None if it failed."""
    new, passes = claimer(folder, quick), []
    wait_for(lambda: passes.append(new.next()) or passes[-1].claim or not passes[-1].left)
    return passes[-1].claim


def test_no_restart_renews_the_budgets_and_a_retry_does(folder, quick, wait_for):
    store = quick(folder)
    for n in range(LOST):
        claim = claim_when_free(folder, quick, wait_for)
        assert len(claim.attempts.all) == n + 1
        die(store, claim)
    assert claim_when_free(folder, quick, wait_for) is None
    new = claimer(folder, quick)
    assert new.next().claim is None
    (status,) = new._state.refresh()
    assert (status.state, status.unrecorded) == ("failed", False)  # by whoever looked first
    assert "died 5 times without getting further" in status.error
    assert store.read(CELL.id, FAILED) is not None
    assert not store.read(CELL.id, LEASE)

    marks.retry(status)
    (status,) = new._state.refresh()
    assert (status.state, status.attempts.counted, len(status.attempts.all)) == (
        "interrupted",
        (),
        LOST,
    )
    assert store.read(CELL.id, FAILED) is None
    assert claimer(folder, quick).next().claim is not None


def test_a_machine_that_is_lost_costs_nothing_while_its_cell_gets_further(folder, quick, wait_for):
    record = Record(folder / CELL.id)
    for n in range(1, LOST + 2):
        claim = claim_when_free(folder, quick, wait_for)
        assert claim.attempts.all[-1].step == n - 1
        record.begin({"hash": CELL.hash}, seen=Progress(0, 0, 0))
        record.row(Progress(n, n * 16, n))
        record.close()
        die(quick(folder), claim)
    assert len(claim.attempts.all) == LOST + 1


def test_a_cell_that_failed_before_there_were_attempts_is_failed_until_a_retry(folder, quick):
    write_failure(folder / CELL.id, error="old")
    (status,) = StudyState([CELL], folder, store=quick(folder)).refresh()
    assert (status.state, status.error) == ("failed", "old")
    assert claimer(folder, quick).next().claim is None
    marks.retry(status)
    assert claimer(folder, quick).next().claim is not None
