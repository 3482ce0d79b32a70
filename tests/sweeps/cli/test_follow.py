"""`logs --follow` and `status --watch` end when nothing more will come, and say why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from study.config import Budget, Cell
from study.records.record import Progress, Record, write_failure
from sweeps.cli import app as cli
from sweeps.cli import status as cli_status
from sweeps.runner import attempts, cell_status, follow, marks
from sweeps.runner.attempts import Attempt, Attempts
from sweeps.runner.lease import Lease
from sweeps.runner.store import LEASE, FolderStore, open_store

GRID = """
from study.config import Budget, Cell
from sweeps.study import Study

def study():
    return Study(name="own", question="?", cells=(Cell(batch_size=16, budget=Budget(steps=10)),))
"""
CELL = Cell(batch_size=16, budget=Budget(steps=10))
VERBS = {"logs": ["logs", "own.py", CELL.id, "--follow"], "status": ["status", "own.py", "--watch"]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The records of the study; looks follow each other fast."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STUDY_ROOT", raising=False)
    (tmp_path / "own.py").write_text(GRID)
    for module, name in (
        (follow, "PATIENCE_S"),
        (FolderStore, "poll_s"),
        (cli_status, "WATCH_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.02)
    folder = tmp_path / "runs" / "own"
    (folder / CELL.id / "logs").mkdir(parents=True)
    (folder / CELL.id / "logs" / "0.log").write_text("hello\n")
    return folder


@pytest.fixture(params=VERBS)
def study(request, folder, monkeypatch, capsys):
    """Runs the verb in a thread of its own while `meanwhile` happens in this one.

    Returns its exit code and what it printed; `study.alive()` tells whether it still follows.
    """

    class Verb:
        def start(self) -> None:
            self.code: list[int] = []
            monkeypatch.setattr(sys, "argv", ["study", *VERBS[request.param]])
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()

        def _run(self) -> None:
            with pytest.raises(SystemExit) as exit:
                cli.main()
            self.code.append(exit.value.code)

        def follows(self) -> bool:
            """Whether it is still at it after many times its patience."""
            self.thread.join(1.0)
            return self.thread.is_alive()

        def end(self) -> tuple[int, str]:
            self.thread.join(60)
            assert not self.thread.is_alive()
            return self.code[0], capsys.readouterr().err

    verb = Verb()
    verb.name = request.param
    return verb


def done(folder, status: str = "done") -> None:
    record = Record(folder / CELL.id)
    record.begin({"hash": CELL.hash}, seen=Progress(0, 0, 0))
    record.finish(Progress(10, 160, 2560), status=status, summary={})


def worker(folder) -> Lease:
    """A worker that trains the cell."""
    store = open_store(folder)
    return Lease.take(store, CELL.id, "", store.list(CELL.id)[CELL.id].get(LEASE))


def test_a_failed_cell(study, folder):
    write_failure(folder / CELL.id, error="no luck")
    study.start()
    code, err = study.end()
    assert code == 1
    if study.name == "logs":
        assert err == f"study: {CELL.id} failed: no luck\n"


def test_a_failed_cell_that_a_retry_gives_back_to_the_workers(study, folder):
    write_failure(folder / CELL.id, error="no luck")
    marks.retry(cell_status.read_cell(CELL, folder / CELL.id))
    with worker(folder):
        study.start()
        assert study.follows()
        done(folder)
    assert study.end() == (0, "")


def test_a_cell_that_waits_for_its_next_attempt(study, folder, monkeypatch):
    """Nobody holds it meanwhile, and yet somebody will."""
    failed = Attempt(
        worker="w", host="h", claimed=time.time(), outcome="raised", ended=time.time() + 60
    )
    Attempts((failed,)).save(open_store(folder), CELL.id)
    monkeypatch.setattr(attempts, "MAX_BACKOFF_S", 600.0)
    monkeypatch.setattr(attempts, "BACKOFF_S", 600.0)
    study.start()
    assert study.follows()
    done(folder)
    assert study.end() == (0, "")


def test_a_cancelled_cell(study, folder):
    with worker(folder):
        marks.cancel(folder / CELL.id)
        study.start()
        assert study.follows()  # it still saves what it has
    assert study.end() == (0, "")


def test_a_cell_that_runs_and_ends(study, folder):
    with worker(folder):
        study.start()
        assert study.follows()
        done(folder, "diverged")
    assert study.end() == (0, "")


def test_a_worker_that_died_elsewhere(study, folder):
    """Its lease grows old; nothing else shows it."""
    lease = folder / CELL.id / LEASE
    lease.write_text('{"host": "m"}')
    os.utime(lease, (0, 0))
    study.start()
    code, err = study.end()
    assert code == 3
    assert "nobody trains" in err and err.count("\n") == 1


def test_a_cell_that_never_started_with_nobody_to_start_it(study, folder):
    (folder / CELL.id / "logs" / "0.log").unlink()
    study.start()
    code, err = study.end()
    assert code == 3
    assert "nobody trains" in err and "study run" in err


# Shells start what runs in the background with the signal ignored, tests too.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from sweeps.cli.app import main
main()
"""


@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_ends_it_with_one_line(verb, folder):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *VERBS[verb]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, worker(folder):
        try:
            assert process.stdout is not None
            assert process.stdout.readline()  # it shows something, so it is at work
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert (out, err.count("\n")) == ("", 1)
    assert "stopped" in err
