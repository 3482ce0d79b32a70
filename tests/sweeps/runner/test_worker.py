"""A worker trains cells until none is left, whatever ends an attempt, and records how it ended."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from study.config import CellError
from study.records.metrics_log import parse, read_rows
from study.records.record import DONE, FAILED, Progress, Record, RecordError
from sweeps.runner import failures, marks, worker
from sweeps.runner.attempts import Attempts
from sweeps.runner.cell_status import StudyState
from sweeps.runner.lease import Owner, acquire, parse_owner
from sweeps.runner.signals import INTERRUPTED, Stop, StopFlag
from sweeps.runner.store import ATTEMPTS, LEASE, BucketStore, FolderStore, open_store
from sweeps.runner.worker import train_once, work
from tests.sweeps import fake_worker

WORKER = fake_worker.__file__
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
        spec = fake_worker.spec(root, list(seeds), **{"log": False, "backoff_s": 0.0, **fields})
        run.lines = []
        return call(spec, stop=stop or StopFlag(), report=run.lines.append)

    return run


@pytest.fixture
def cell(root):
    """The folder of the cell of a seed."""
    return lambda seed: root / "fake" / fake_worker.study([seed]).cells[0].id


def attempts_of(folder) -> list[str | None]:
    content = open_store(folder.parent).read(folder.name, ATTEMPTS)
    return [attempt.outcome for attempt in Attempts.parse(content).all]


def lease_of(folder):
    return parse_owner(open_store(folder.parent).read(folder.name, LEASE))


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


# --- processes -----------------------------------------------------------------------------------


@pytest.fixture
def expected(monkeypatch, tmp_path_factory):
    """The final number of a seed that was trained without a stop."""
    monkeypatch.setenv("FAKE_CELL_SECONDS", "0")
    from tests.sweeps import fake_cell

    monkeypatch.setattr(fake_cell, "SECONDS_PER_STEP", 0.0)

    def final(seed: int) -> float:
        (cell,) = fake_worker.study([seed]).cells
        folder = tmp_path_factory.mktemp("plain")
        done = fake_cell.train(cell, None, folder=folder, group="fake", should_stop=lambda: False)
        return done["summary"]["train/loss"]

    return final


def finished(folder) -> bool:
    store = open_store(folder.parent)
    return store.read(folder.name, DONE) is not None


def steps_of(folder) -> list[int]:
    """The steps of all rows ever written, superseded ones too."""
    rows = [json.loads(line) for line in read_rows(folder).splitlines()]
    return [row["step"] for row in rows if "event" not in row]


def saved(folder) -> bool:
    return open_store(folder.parent).read(folder.name, "saved.json") is not None


def result_of(folder) -> float:
    return json.loads(open_store(folder.parent).read(folder.name, DONE))["summary"]["train/loss"]


def test_two_workers_finish_a_study_and_do_no_step_twice(root, cell, start, expected):
    seeds = range(5)
    workers = [
        start(WORKER, str(root), *map(str, seeds), FAKE_CELL_SECONDS="0.01") for _ in range(2)
    ]
    outputs = [process.communicate(timeout=90)[0] for process in workers]
    assert [process.returncode for process in workers] == [0, 0], outputs
    for seed in seeds:
        assert steps_of(cell(seed)) == [*range(1, fake_worker.STEPS + 1)]
        assert result_of(cell(seed)) == expected(seed)
        assert attempts_of(cell(seed)) == ["done"]
        assert lease_of(cell(seed)) is None
    assert all(" done in " in output for output in outputs)  # both worked


def test_a_worker_that_is_killed_is_replaced_by_the_other(root, cell, start, wait_for, expected):
    seeds = range(3)
    one = start(WORKER, str(root), *map(str, seeds), FAKE_CELL_SECONDS="0.6")
    wait_for(lambda: lease_of(cell(0)))
    two = start(WORKER, str(root), *map(str, seeds), FAKE_CELL_SECONDS="0.02")
    wait_for(lambda: steps_of(cell(1)) and saved(cell(0)))
    one.kill()
    output = two.communicate(timeout=90)[0]
    assert two.returncode == 0, output
    for seed in seeds:
        assert result_of(cell(seed)) == expected(seed)
    assert attempts_of(cell(0)) == ["lost", "done"] and attempts_of(cell(1)) == ["done"]
    log = parse(read_rows(cell(0)))
    assert [row["step"] for row in log.rows] == [*range(1, fake_worker.STEPS + 1)]
    assert log.superseded < 5  # what was trained since its last checkpoint
    assert steps_of(cell(1)) == [*range(1, fake_worker.STEPS + 1)]


@pytest.mark.parametrize(
    ("number", "outcome", "code"),
    [(signal.SIGTERM, "preempted", 3), (signal.SIGINT, "stopped", INTERRUPTED)],
)
def test_a_signal_saves_the_cell_and_ends_the_worker(
    tmp_path, start, wait_for, number, outcome, code
):
    root = tmp_path / "runs"
    folder = root / "fake" / fake_worker.study([0]).cells[0].id
    process = start(WORKER, str(root), "0", "1", FAKE_CELL_SECONDS="0.05")
    wait_for(lambda: steps_of(folder))
    process.send_signal(number)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == code, output
    assert attempts_of(folder) == [outcome]
    assert lease_of(folder) is None
    step, _ = json.loads((folder / "saved.json").read_text())
    assert step == steps_of(folder)[-1]  # nothing that was trained is lost
    assert not finished(folder)


def test_a_second_ctrl_c_quits_at_once(tmp_path, start, wait_for):
    root = tmp_path / "runs"
    folder = root / "fake" / fake_worker.study([0]).cells[0].id
    process = start(WORKER, str(root), "0", FAKE_CELL_SECONDS="30")
    wait_for(lambda: lease_of(folder))
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    until = time.monotonic() + 20  # long before the step ends
    while process.poll() is None and time.monotonic() < until:
        process.send_signal(signal.SIGINT)  # two at once may arrive as one
        time.sleep(0.2)
    assert process.returncode == INTERRUPTED
    assert attempts_of(folder) == [None]  # the next worker closes it


def test_a_worker_that_kills_itself_is_counted_and_the_next_goes_on(root, cell, start, tmp_path):
    (tmp_path / "0.crash").write_text("1")
    process = start(WORKER, str(root), "0", FAKE_CELL_SECONDS="0.001")
    process.communicate(timeout=90)
    assert process.returncode == -signal.SIGKILL
    again = start(WORKER, str(root), "0", FAKE_CELL_SECONDS="0.001")
    output = again.communicate(timeout=90)[0]
    assert again.returncode == 0, output
    assert attempts_of(cell(0)) == ["lost", "done"]


def test_a_stopped_worker_notices_that_its_cell_was_taken_over(
    root, cell, start, wait_for, expected
):
    args = (WORKER, str(root), "0")
    one = start(*args, FAKE_CELL_SECONDS="0.05", STALE="1")
    wait_for(lambda: saved(cell(0)))
    one.send_signal(signal.SIGSTOP)
    two = start(*args, FAKE_CELL_SECONDS="0.02", STALE="1")
    wait_for(lambda: finished(cell(0)))
    assert two.communicate(timeout=90)[0].startswith(f"{cell(0).name} started, attempt 2")
    rows = read_rows(cell(0))
    one.send_signal(signal.SIGCONT)
    output = one.communicate(timeout=90)[0]
    assert "the attempt ends without another write" in output
    assert one.returncode == 0, output
    # It may have been stopped in the middle of a step, whose row it then writes.
    assert read_rows(cell(0)).count(b"\n") <= rows.count(b"\n") + 1
    assert attempts_of(cell(0)) == ["lost", "done"]
    assert result_of(cell(0)) == expected(0)


def test_what_a_cell_prints_is_in_its_log_and_not_on_the_terminal(tmp_path, start):
    (tmp_path / "noisy.py").write_text(
        "from fake_cell import train as quiet\n"
        "def train(*args, **more):\n"
        "    print('from the cell')\n"
        "    return quiet(*args, **more)\n"
    )
    root = tmp_path / "runs"
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import fake_worker\n"
        "from pathlib import Path; from sweeps.runner.worker import work\n"
        "out = os.fdopen(os.dup(1), 'w')\n"
        "spec = fake_worker.spec(Path(sys.argv[2]), [0], entry='noisy:train')\n"
        "work(spec, report=lambda line: print(line, file=out, flush=True))\n"
    )
    process = start("-c", code, str(tmp_path), str(root), FAKE_CELL_SECONDS="0")
    output = process.communicate(timeout=90)[0]
    (log,) = root.glob("fake/*/logs/0.log")
    assert "from the cell" in log.read_text()
    assert "from the cell" not in output and " done in " in output


# --- signals -------------------------------------------------------------------------------------

SIGNALLED = """
import time
from sweeps.runner.signals import Stop, StopFlag
flag = StopFlag()
with Stop(flag) as stop:
    print("ready", flush=True)
    while not stop.is_asked():
        time.sleep(0.01)
    print(flag.reason, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGINT, "stopped"), (signal.SIGTERM, "preempted"), (signal.SIGHUP, "preempted")],
)
def test_the_first_signal_asks_and_the_second_quits(number, reason):
    with subprocess.Popen(
        [sys.executable, "-c", SIGNALLED], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{reason}\n"
        process.send_signal(number)
        assert process.wait(30) == INTERRUPTED


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        stop.raises = True
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.asked
    assert signal.getsignal(signal.SIGINT) is before


def test_the_first_reason_to_stop_counts():
    flag = StopFlag()
    threads = [threading.Thread(target=flag.set, args=[r]) for r in ("cancelled", "stopped")]
    for thread in threads:
        thread.start()
        thread.join()
    assert flag.is_set() and flag.reason == "cancelled"
