"""A worker trains cells until none is left, whatever ends an attempt, and records how it ended."""

from __future__ import annotations

import errno
import json
import time

import pytest

from study.config import CellError
from study.records.record import FAILED, Progress, Record, RecordError
from sweeps.runner import failures, marks, worker
from sweeps.runner.cell_status import StudyState
from sweeps.runner.lease import Owner, acquire
from sweeps.runner.signals import StopFlag
from sweeps.runner.store import LEASE, BucketStore, FolderStore, open_store
from sweeps.runner.worker import train_once, work
from tests.sweeps import fake_worker
from tests.sweeps.fake_worker import attempts_of, lease_of

ELSEWHERE = Owner(host="elsewhere", namespace="e", pid=1, started=1, worker="w", token="0" * 32)


class Stopped(Exception):
    pass


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Heartbeats and looks of workers in this process follow each other fast."""
    for store in (FolderStore, BucketStore):
        for name, seconds in (("renew_s", 0.02), ("poll_s", 0.02), ("stale_s", 30.0)):
            monkeypatch.setattr(store, name, seconds)
    monkeypatch.setattr(worker, "_PASS_S", 0.02)


@pytest.fixture
def run(monkeypatch, root):
    """Runs a worker in this process whose cells train with `train`, which gets the cell's seed."""

    def run(train, seeds=(0,), *, stop=None, call=work, **fields):
        def entry(cell, execution, *, folder, should_stop, **more):
            status = train(cell.seed, folder=folder, should_stop=should_stop) or "done"
            record = Record(folder)
            record.begin({"hash": cell.hash}, seen=Progress(0, 0, 0))
            return record.finish(Progress(20, 320, 1), status=status, summary={})

        monkeypatch.setattr(worker, "import_entry", lambda name: entry)
        spec = fake_worker.spec(root, list(seeds), **{"log": False, **fields})
        run.lines = []
        return call(spec, stop=stop or StopFlag(), report=run.lines.append)

    return run


def wait_until_asked(should_stop):
    while not should_stop():
        time.sleep(0.01)
    raise Stopped


# --- how an attempt ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome", "line"),
    [
        (CellError("batch_size: no"), "invalid", "batch_size: no"),
        (RecordError("holds another"), "invalid", "holds another"),
        (KeyError("x"), "raised", "KeyError: 'x'"),
        (RuntimeError("two\nlines"), "raised", "RuntimeError: two lines"),
        (ValueError(), "raised", "ValueError"),
    ],
)
def test_an_exception_is_one_line_with_its_trace_in_the_record(tmp_path, error, outcome, line):
    assert failures.classify(error, tmp_path) == (outcome, line)
    failures.record_failure(tmp_path, error, outcome, line, since=time.time())
    failure = json.loads((tmp_path / FAILED).read_text())
    assert failure["error"] == line
    assert type(error).__name__ in failure["trace"]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        caused(RecordError("cannot write runs: full"), OSError(errno.ENOSPC, "No space left")),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("UNKNOWN: write failed: No space left on device [tensorstore]"),
    ],
)
def test_a_full_disk_is_known_however_it_is_said_and_is_no_failure_of_the_cell(tmp_path, error):
    outcome, line = failures.classify(error, tmp_path)
    assert outcome == "no space" and "cannot write" in line
    failures.record_failure(tmp_path, error, outcome, line, since=0.0)
    assert not (tmp_path / FAILED).exists()


def test_a_storage_that_does_not_respond_is_tried_again_and_is_not_bad_input(tmp_path):
    error = caused(RecordError("cannot write gs://b/s (HttpError: 503)"), OSError("503"))
    assert failures.classify(error, tmp_path)[0] == "raised"


def test_cells_that_raise_are_bad_or_diverge_do_not_stop_the_others(run, cell):
    tries: list[int] = []

    def train(seed, **more):
        tries.append(seed)
        match seed:
            case 0:
                raise ZeroDivisionError("no luck")
            case 1:
                raise CellError("batch_size: no")
            case 2:
                return "diverged"
            case 3 if tries.count(3) == 1:
                raise ZeroDivisionError("once")
        return None  # done

    result = run(train, range(5))
    assert result.end == "finished"
    assert result.outcomes == dict(
        zip(
            (cell(seed).name for seed in range(5)),
            ("raised", "invalid", "diverged", "done", "done"),
            strict=True,
        )
    )
    assert [tries.count(seed) for seed in range(5)] == [3, 1, 1, 2, 1]
    assert attempts_of(cell(0)) == ["raised"] * 3
    assert attempts_of(cell(3)) == ["raised", "done"]
    assert all(lease_of(cell(seed)) is None for seed in range(5))
    assert any("attempt 2" in line for line in run.lines)
    assert f"{cell(1).name} failed: batch_size: no" in run.lines


def test_a_full_disk_ends_the_worker_and_the_record_is_kept(run, cell):
    def train(seed, **more):
        if seed == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    result = run(train, range(3))
    assert result.end == "no space" and "no space left" in result.error
    assert attempts_of(cell(1)) == ["no space"]
    assert lease_of(cell(1)) is None
    assert attempts_of(cell(2)) == []
    assert run(lambda seed, **more: None, range(3)).end == "finished"  # there is room again


def test_a_disk_that_fills_up_when_an_end_is_recorded_ends_the_worker(run, cell, monkeypatch):
    write = FolderStore.write

    def full(store, folder, name, content):
        if content["attempts"][-1]["outcome"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(store, folder, name, content)

    for store in (FolderStore, BucketStore):
        monkeypatch.setattr(store, "write", full)
    assert run(lambda seed, **more: None, range(2)).end == "no space"


def test_an_end_that_could_not_be_recorded_is_recorded_by_the_next_claim(run, cell, monkeypatch):
    for store in (FolderStore, BucketStore):

        def fail(self, folder, name, content, write=store.write):
            if content["attempts"][-1]["outcome"]:
                raise OSError(errno.EIO, "Input/output error")
            write(self, folder, name, content)

        monkeypatch.setattr(store, "write", fail)
    tries = []

    def train(seed, **more):
        tries.append(seed)
        if tries == [0]:
            raise ZeroDivisionError("no luck")

    result = run(train, range(2))
    assert result.end == "finished" and sorted(tries) == [0, 0, 1]
    assert attempts_of(cell(0))[0] == "raised"


def test_a_worker_that_lost_its_lease_ends_the_attempt_without_another_write(run, cell, wait_for):
    files = []

    def train(seed, *, folder, should_stop):
        if files:
            return
        store = open_store(folder.parent)
        wait_for(
            lambda: acquire(
                store, folder.name, ELSEWHERE, store.list(folder.name)[folder.name][LEASE]
            )
        )
        files.append(contents(folder))
        while not should_stop():
            time.sleep(0.01)
        raise AssertionError("should_stop raises")

    def contents(folder):
        store = open_store(folder.parent)
        names = store.list(folder.name)[folder.name]
        return {name: store.read(folder.name, name) for name in names}

    result = run(train, max_idle_s=0.0)
    assert result.end == "idle"  # the other has it
    assert result.outcomes == {cell(0).name: "lost"}
    assert contents(cell(0)) == files[0]
    assert lease_of(cell(0)) == ELSEWHERE
    assert "another worker has taken its lease over" in run.lines[1]


# --- how a worker is asked to stop ---------------------------------------------------------------


def test_a_cell_that_is_cancelled_saves_its_state_and_the_worker_goes_on(run, cell):
    def train(seed, *, folder, should_stop):
        if seed == 0:
            marks.cancel(folder)
            wait_until_asked(should_stop)

    result = run(train, range(2))
    assert result.end == "finished"
    assert result.outcomes == {cell(0).name: "cancelled", cell(1).name: "done"}
    assert attempts_of(cell(0)) == ["cancelled"]


def test_the_stop_mark_of_its_run_ends_a_worker_and_that_of_another_does_not(run, cell, root):
    def train(seed, *, folder, should_stop):
        marks.request_stop(folder.parent, "other")
        if seed == 1:
            marks.request_stop(folder.parent, "mine")
            wait_until_asked(should_stop)

    result = run(train, range(3), run_id="mine")
    assert result.end == "stopped"
    assert result.outcomes == {cell(0).name: "done", cell(1).name: "stopped"}
    assert attempts_of(cell(1)) == ["stopped"]
    marks.clear_stop(root / "fake", "mine")
    assert run(lambda seed, **more: None, range(3), run_id="mine").end == "finished"


@pytest.mark.parametrize("reason", ["stopped", "preempted"])
def test_a_flag_stops_the_cell_and_ends_the_worker(run, cell, reason):
    flag = StopFlag()

    def train(seed, *, folder, should_stop):
        flag.set(reason)
        wait_until_asked(should_stop)

    assert run(train, range(2), stop=flag).end == reason
    assert attempts_of(cell(0)) == [reason]
    assert lease_of(cell(0)) is None
    assert run(lambda seed, **more: None, range(2), stop=flag).outcomes == {}


def test_a_worker_that_only_waits_for_others_ends_when_it_is_idle_for_long(run, cell):
    folder = cell(0)
    acquire(open_store(folder.parent), folder.name, ELSEWHERE, None)
    result = run(lambda seed, **more: None, range(2), max_idle_s=0.05)
    assert (result.end, result.outcomes) == ("idle", {cell(1).name: "done"})


def test_a_storage_that_fails_for_a_while_is_waited_for(run, monkeypatch):
    failing = [True] * 3
    refresh = StudyState.refresh

    def fail(self, cell=None):
        if failing and failing.pop():
            raise OSError(errno.EIO, "Input/output error")
        return refresh(self, cell)

    monkeypatch.setattr(StudyState, "refresh", fail)
    assert run(lambda seed, **more: None).end == "finished"
    for store in (FolderStore, BucketStore):
        monkeypatch.setattr(store, "stale_s", 0.1)
    failing[:] = [True] * 1000
    result = run(lambda seed, **more: None, range(2))
    assert (result.end, "Input/output error" in result.error) == ("failed", True)


# --- one cell ------------------------------------------------------------------------------------


def test_train_is_refused_while_another_process_trains_the_cell(run, cell):
    folder = cell(0)
    acquire(open_store(folder.parent), folder.name, ELSEWHERE, None)
    with pytest.raises(RecordError, match="is being trained by process 1 on elsewhere"):
        run(lambda seed, **more: None, call=train_once)


def test_train_waits_until_an_owner_on_another_machine_is_certainly_gone(run, cell, monkeypatch):
    folder = cell(0)
    acquire(open_store(folder.parent), folder.name, ELSEWHERE, None)
    for store in (FolderStore, BucketStore):
        monkeypatch.setattr(store, "stale_s", 0.3)
    time.sleep(0.31)
    assert run(lambda seed, **more: None, call=train_once)[0] == "done"
    assert "old lease" in run.lines[0]


def test_train_takes_a_cell_that_failed_or_is_cancelled(run, cell):
    run(lambda seed, **more: (_ for _ in ()).throw(CellError("no")))
    marks.cancel(cell(0))
    assert run(lambda seed, **more: None).outcomes == {}
    assert run(lambda seed, **more: None, call=train_once) == ("done", None)
    assert attempts_of(cell(0)) == ["invalid", "done"]
