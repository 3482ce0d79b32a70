"""Workers in processes of their own: killed, stopped, interrupted, and two on one study."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from study.records.metrics_log import parse, read_rows
from study.records.record import DONE
from study.records.storage import is_bucket
from sweeps.runner.signals import INTERRUPTED, Stop, StopFlag
from sweeps.runner.store import open_store
from tests.sweeps import fake_worker
from tests.sweeps.fake_worker import attempts_of, lease_of

WORKER = fake_worker.__file__


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
    # It may have been stopped in the middle of a step, whose row it then writes, in a bucket with
    # rows that waited for it. The attempt of the other supersedes them.
    after = read_rows(cell(0))
    assert parse(after).rows == parse(rows).rows
    if not is_bucket(cell(0)):
        assert after.count(b"\n") <= rows.count(b"\n") + 1
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
from sweeps.runner.signals import Stop
with Stop() as stop:
    print("ready", flush=True)
    while not stop.asked:
        time.sleep(0.01)
    print(stop.flag.reason, flush=True)
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
