"""A lease is held by one living process at most, and by whoever comes next once it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from sweeps.runner.lease_file import LEASE, Holder, Lease, LeaseHeld, LeaseLost, holder_of

CONTEND = """
import sys, time
from pathlib import Path
from sweeps.runner.lease_file import Lease, LeaseHeld
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    lease = Lease.acquire(Path(sys.argv[1]))
except LeaseHeld:
    print("held", flush=True)
else:
    print("won", flush=True)
sys.stdin.read()
"""


def contend(path: Path, go: Path, count: int = 4) -> list[str]:
    command = [sys.executable, "-c", CONTEND, str(path), str(go)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    go.touch()
    said = [process.stdout.readline().strip() for process in processes]  # all are still alive
    for process in processes:
        process.communicate()
    return said


def of_dead_process(path: Path) -> Holder:
    """Leaves the lease of a process that is gone."""
    code = (
        "import os, sys; from pathlib import Path; from sweeps.runner.lease_file import Lease;"
        "Lease.acquire(Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    return Holder(**json.loads(path.read_text()))


def of_elsewhere(path: Path, *, age: float) -> None:
    """Leaves a lease of another machine, last renewed `age` seconds ago."""
    holder = Holder(machine="elsewhere", pid=1, started=1, token="0" * 16)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(holder)))
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))


def test_of_processes_that_contend_for_a_free_lease_exactly_one_wins(tmp_path):
    said = contend(tmp_path / "cell" / LEASE, tmp_path / "go")
    assert sorted(said) == ["held", "held", "held", "won"]


def test_of_processes_that_contend_for_a_dead_ones_lease_exactly_one_wins(tmp_path):
    path = tmp_path / "cell" / LEASE
    of_dead_process(path)
    assert sorted(contend(path, tmp_path / "go")) == ["held", "held", "held", "won"]


def test_of_threads_that_find_a_lease_stale_exactly_one_takes_it_over(tmp_path):
    for round_ in range(30):
        path = tmp_path / str(round_) / LEASE
        of_elsewhere(path, age=1000)

        def attempt(_, path=path):
            try:
                return Lease.acquire(path)
            except LeaseHeld:
                return None

        with ThreadPoolExecutor(8) as pool:
            won = [lease for lease in pool.map(attempt, range(8)) if lease is not None]
        assert len(won) == 1
        won[0].release()
        assert list(path.parent.iterdir()) == []  # nothing is left behind


def test_a_live_lease_is_refused_with_a_line_that_says_who_holds_it(tmp_path):
    with Lease.acquire(tmp_path / LEASE), pytest.raises(LeaseHeld) as caught:
        Lease.acquire(tmp_path / LEASE)
    assert f"process {os.getpid()}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path):
    holder = of_dead_process(tmp_path / LEASE)
    assert holder.dead
    assert holder_of(tmp_path / LEASE) is None
    with Lease.acquire(tmp_path / LEASE) as lease:
        assert holder_of(tmp_path / LEASE) == lease.holder


def test_a_reused_process_number_does_not_keep_a_lease_alive(tmp_path):
    mine = Holder.here()
    path = tmp_path / LEASE
    path.write_text(json.dumps({**asdict(mine), "started": mine.started - 1}))
    assert holder_of(path) is None


def test_a_process_elsewhere_keeps_its_lease_until_it_has_been_silent_for_long(tmp_path):
    of_elsewhere(tmp_path / LEASE, age=50)
    with pytest.raises(LeaseHeld):
        Lease.acquire(tmp_path / LEASE)
    of_elsewhere(tmp_path / LEASE, age=70)
    with Lease.acquire(tmp_path / LEASE) as lease:
        assert holder_of(tmp_path / LEASE) == lease.holder


def test_a_lease_is_renewed_while_it_is_held(tmp_path, wait_for):
    path = tmp_path / LEASE
    with Lease.acquire(path, renew=0.01):
        os.utime(path, (0, 0))
        wait_for(lambda: holder_of(path) is not None)


def test_a_holder_that_was_taken_over_notices_and_leaves_the_new_lease_alone(tmp_path):
    path = tmp_path / LEASE
    old = Lease.acquire(path, renew=0.02)
    os.utime(path, (0, 0))  # as if it had been suspended
    new = Lease.acquire(path, stale=-1.0)
    assert old.lost.wait(10)
    with pytest.raises(LeaseLost):
        old.check()
    old.release()
    assert holder_of(path) == new.holder
    new.check()
    new.release()
    assert not path.exists()


def test_a_half_written_lease_counts_as_held_while_it_is_fresh(tmp_path):
    path = tmp_path / LEASE
    path.write_text('{"machine": "a')
    assert holder_of(path) is not None
    with pytest.raises(LeaseHeld):
        Lease.acquire(path)
    os.utime(path, (0, 0))
    assert holder_of(path) is None
