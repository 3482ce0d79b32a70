"""One cell in one process: however it ends, that is said, and recorded where it should be."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from study.config import Budget, Cell, CellError, Execution, to_dict
from study.records.record import FAILED, RecordError
from sweeps.runner import worker
from sweeps.runner.lease_file import LEASE, Lease
from sweeps.runner.signals import INTERRUPTED, Stop
from sweeps.runner.worker import Task, run_cell, run_here

CELL = Cell(batch_size=16, budget=Budget(steps=10))


class Stopped(Exception):
    pass


@pytest.fixture
def ends(monkeypatch, tmp_path):
    """Runs a cell that trains with `train`."""

    def run(train, should_stop=lambda: False):
        monkeypatch.setattr(worker, "load", lambda entry: train)
        folder = tmp_path / CELL.id
        return run_here(CELL, Execution(), folder=folder, group="s", should_stop=should_stop)

    return run


def raiser(error: Exception):
    def train(*args, **more):
        raise error

    return train


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_an_end_is_what_the_cell_says(ends, status):
    outcome = ends(lambda *a, **k: {"status": status})
    assert (outcome.end, outcome.pid) == (status, os.getpid())


@pytest.mark.parametrize(
    ("error", "end", "line"),
    [
        (CellError("batch_size: no"), "bad input", "batch_size: no"),
        (RecordError("holds another"), "bad input", "holds another"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (RuntimeError("two\nlines"), "failed", "RuntimeError: two lines"),
        (ValueError(), "failed", "ValueError"),
    ],
)
def test_an_exception_is_one_line_with_its_trace_in_the_record(ends, tmp_path, error, end, line):
    outcome = ends(raiser(error))
    assert (outcome.end, outcome.error) == (end, line)
    failure = json.loads((tmp_path / CELL.id / FAILED).read_text())
    assert failure["error"] == line
    assert type(error).__name__ in failure["trace"]


def full_disk() -> RecordError:
    error = RecordError("cannot write runs: no space left")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    "error",
    [
        full_disk(),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("UNKNOWN: write failed: No space left on device [tensorstore]"),
    ],
)
def test_a_full_disk_is_known_however_it_is_said_and_is_no_failure_of_the_cell(
    ends, tmp_path, error
):
    outcome = ends(raiser(error))
    assert outcome.end == "disk"
    assert "cannot write" in outcome.error
    assert not (tmp_path / CELL.id / FAILED).exists()


def test_a_cell_that_somebody_else_runs_is_not_entered(ends, tmp_path):
    with Lease.acquire(tmp_path / CELL.id / LEASE):
        outcome = ends(raiser(AssertionError("entered")))
    assert outcome.end == "held"


def test_a_cell_that_lost_its_lease_ends_without_another_write(ends, tmp_path, monkeypatch):
    folder = tmp_path / CELL.id
    acquire = Lease.acquire
    monkeypatch.setattr(Lease, "acquire", lambda path: acquire(path, renew=0.01))

    def train(*args, should_stop, **more):
        os.utime(folder / LEASE, (0, 0))
        theirs = acquire(folder / LEASE, stale=-1.0)
        try:
            while not should_stop():
                time.sleep(0.01)
        finally:
            files.append(sorted(path.name for path in folder.iterdir()))
            theirs.release()

    files: list[list[str]] = []
    outcome = ends(train)
    assert outcome.end == "held"
    assert "took this over" in outcome.error
    assert files == [[LEASE]]
    assert list(folder.iterdir()) == []


def test_a_cell_stops_when_its_driver_lets_go(monkeypatch, tmp_path):
    driver = Lease.acquire(tmp_path / "driver" / LEASE)
    began = threading.Event()

    def train(*args, should_stop, **more):
        began.set()
        while not should_stop():
            time.sleep(0.01)
        raise Stopped

    monkeypatch.setattr(worker, "load", lambda entry: train)
    task = Task(
        cell=to_dict(CELL),
        execution=vars(Execution()),
        folder=str(tmp_path / CELL.id),
        group="s",
        driver=str(driver.path),
    )
    threading.Thread(target=lambda: began.wait() and driver.release()).start()
    outcome = run_cell(task)
    assert outcome.end == "stopped"
    assert asdict(outcome)["error"] is None
    assert not (tmp_path / CELL.id / LEASE).exists()


SIGNALLED = """
import os, sys, time
from sweeps.runner.signals import Stop
with Stop() as stop:
    print("ready", flush=True)
    while not stop.is_asked():
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_quits(number):
    process = subprocess.Popen([sys.executable, "-c", SIGNALLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(number)
    assert process.wait(30) == INTERRUPTED
    process.stdout.close()


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        stop.raises = True
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.asked
    assert signal.getsignal(signal.SIGINT) is before
