"""`logs --follow` and `status --watch` end when nothing more will come, and say why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from study.config import Budget, Cell
from study.records.record import Progress, Record, write_failure
from sweeps.cli import app as cli
from sweeps.cli import cells as cli_cells
from sweeps.cli import status as cli_status
from sweeps.runner import cancellation as marks
from sweeps.runner import follow
from sweeps.runner.lease_file import DRIVER, LEASE, Lease

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
        (follow, "PATIENCE"),
        (cli_cells, "FOLLOW_SECONDS"),
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


def driver(folder) -> Lease:
    return Lease.acquire(folder / f"{DRIVER}1" / LEASE)


def test_a_failed_cell_without_a_driver(study, folder):
    write_failure(folder / CELL.id, error="no luck")
    study.start()
    code, said = study.end()
    assert code == 1
    assert said.count("\n") == 1 and "nobody is running" in said
    assert study.name == "status" or "no luck" in said


def test_a_failed_cell_that_a_driver_may_retry(study, folder):
    write_failure(folder / CELL.id, error="no luck")
    with driver(folder):
        study.start()
        assert study.follows()
        with Lease.acquire(folder / CELL.id / LEASE):
            (folder / CELL.id / "FAILED.json").unlink()
            done(folder)
    assert study.end() == (0, "")


def test_a_failed_cell_that_its_driver_gives_up(study, folder):
    with driver(folder):
        study.start()
        assert study.follows()
        write_failure(folder / CELL.id, error="no luck")
        assert study.follows()
    assert study.end()[0] == 1


def test_a_cancelled_cell(study, folder):
    with driver(folder), Lease.acquire(folder / CELL.id / LEASE):
        marks.cancel(folder / CELL.id)
        study.start()
        assert study.follows()  # it still saves what it has
    assert study.end() == (0, "")


def test_a_cell_that_runs_and_ends(study, folder):
    with Lease.acquire(folder / CELL.id / LEASE):
        study.start()
        assert study.follows()
        done(folder, "diverged")
    assert study.end() == (0, "")


def test_a_driver_that_died_elsewhere(study, folder):
    """Its leases grow old; nothing else tells of it."""
    for lease in (folder / f"{DRIVER}1" / LEASE, folder / CELL.id / LEASE):
        lease.parent.mkdir(exist_ok=True)
        lease.write_text('{"machine": "m", "pid": 1, "started": 1, "token": ""}')
        os.utime(lease, (0, 0))
    study.start()
    code, said = study.end()
    assert code == 3
    assert "nobody is running" in said and said.count("\n") == 1


def test_a_cell_that_never_started_with_nobody_to_start_it(study, folder):
    (folder / CELL.id / "logs" / "0.log").unlink()
    study.start()
    code, said = study.end()
    assert code == 3
    assert "nobody is running" in said and "study run" in said


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
    with process, Lease.acquire(folder / CELL.id / LEASE):
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
