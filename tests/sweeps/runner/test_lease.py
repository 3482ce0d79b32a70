"""A lease is held by one living process at most, and by the next one once that is silent."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from study.records.storage import RecordError, is_bucket, resolve
from sweeps.runner import lease as leases
from sweeps.runner.lease import (
    UNKNOWN,
    Heartbeats,
    Lease,
    LeaseLost,
    Owner,
    acquire,
    monotonic,
    parse_owner,
)
from sweeps.runner.store import LEASE, open_store

ELSEWHERE = Owner(host="elsewhere", namespace="e", pid=1, started=1, worker="w", token="0" * 32)
# Takes the lease of cell x, then writes lines for as long as it may. "die" ends it at once.
HOLDER = """
import os, sys, time
from study.records.storage import resolve
from sweeps.runner.lease import Lease, LeaseLost
from sweeps.runner.store import open_store
store = open_store(resolve(sys.argv[1]))
store.renew_s, store.stale_s = 0.02, 0.6
lease = Lease.take(store, "x", "holder", None).start()
if sys.argv[2] == "die":
    os._exit(9)
with open(sys.argv[2], "a", buffering=1) as rows:
    try:
        while True:
            lease.check()
            print("row", file=rows)
            time.sleep(0.005)
    except LeaseLost as error:
        print(error)
"""


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def version_of(store, cell="x"):
    return store.list(cell)[cell].get(LEASE) if cell in store.list(cell) else None


def owner_of(heartbeats, store, cell="x"):
    return heartbeats.owner(cell, version_of(store, cell))


def take(store) -> Lease:
    lease = Lease.take(store, "x", "test", version_of(store))
    assert lease is not None
    return lease


def is_lost(lease) -> bool:
    try:
        lease.check()
    except LeaseLost as error:
        assert "\n" not in str(error) and str(error).startswith("x: ")
        return True
    return False


# --- who gets it ---------------------------------------------------------------------------------


def test_of_many_that_find_a_lease_stale_exactly_one_takes_it_over(folder, quick):
    count = 6
    for cell in map(str, range(3)):
        stale = acquire(quick(folder), cell, ELSEWHERE, None)
        ready = threading.Barrier(count)

        def contend(k, cell=cell, stale=stale, ready=ready):
            store, clock = quick(folder), Clock()
            heartbeats = Heartbeats(store, clock=clock)
            assert owner_of(heartbeats, store, cell) is not None
            clock.now += store.stale_s + 0.01
            ready.wait()
            if owner_of(heartbeats, store, cell) is not None:
                return None  # another has just taken it
            return acquire(store, cell, replace(ELSEWHERE, token=str(k)), stale)

        with ThreadPoolExecutor(count) as pool:
            versions = [*pool.map(contend, range(count))]
        (winner,) = [k for k, version in enumerate(versions) if version is not None]
        assert parse_owner(quick(folder).read(cell, LEASE)).token == str(winner)


def test_nobody_takes_a_lease_by_what_was_seen_long_ago(folder, quick):
    store = quick(folder)
    stale = acquire(store, "x", ELSEWHERE, None)
    with take(store):  # it was taken over, and given back
        pass
    with take(store) as lease:
        assert acquire(store, "x", ELSEWHERE, stale) is None
        assert not is_lost(lease)


def test_a_release_frees_it_at_once(folder, quick):
    store = quick(folder)
    heartbeats = Heartbeats(quick(folder))
    for _ in range(3):
        with take(store) as lease:
            assert owner_of(heartbeats, store) is not None
        lease.release()  # again does nothing
        assert owner_of(heartbeats, store) is None


def test_an_owner_elsewhere_keeps_it_until_it_was_silent_for_long(folder, quick):
    store, clock = quick(folder), Clock()
    heartbeats = Heartbeats(store, clock=clock)
    version = acquire(store, "x", ELSEWHERE, None)
    for _ in range(5):
        assert owner_of(heartbeats, store) is not None
        clock.now += store.stale_s - 0.01
        assert owner_of(heartbeats, store) == ELSEWHERE
        version = store.touch("x", LEASE, json.dumps(asdict(ELSEWHERE)).encode(), version)
    assert owner_of(heartbeats, store) is not None
    clock.now += store.stale_s + 0.01
    assert owner_of(heartbeats, store) is None


def test_a_lease_of_another_version_of_the_program_is_held_until_it_is_silent(folder, quick):
    store, clock = quick(folder), Clock()
    heartbeats = Heartbeats(store, clock=clock)
    store.swap("x", LEASE, b'{"machine": "a', None)
    assert owner_of(heartbeats, store) == UNKNOWN
    clock.now += store.stale_s + 0.01
    assert owner_of(heartbeats, store) is None


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(folder, quick, wait_for):
    subprocess.run([sys.executable, "-c", HOLDER, str(folder), "die"], check=False)
    store = quick(folder, renew_s=0.05, stale_s=3600)  # no wait for silence
    heartbeats = Heartbeats(store)
    if is_bucket(folder):  # where who holds it is read once a heartbeat is missing
        assert owner_of(heartbeats, store) is not None
    wait_for(lambda: owner_of(heartbeats, store) is None)
    assert owner_of(Heartbeats(store, trust_mtime=True), store) is None
    with take(store) as lease:
        assert owner_of(Heartbeats(store, trust_mtime=True), store) == lease.owner


def test_the_heir_of_a_dead_process_is_not_taken_for_dead(folder, quick):
    """A contender that knew the dead owner sees a new version, whose content it has not read."""
    store, clock = quick(folder), Clock()
    heartbeats = Heartbeats(store, clock=clock)
    mine = Owner.here()
    dead = acquire(store, "x", replace(mine, started=mine.started - 1), None)
    owner_of(heartbeats, store)
    clock.now += 3 * store.renew_s
    assert owner_of(heartbeats, store) is None
    assert acquire(store, "x", ELSEWHERE, dead) is not None
    assert owner_of(heartbeats, store) == ELSEWHERE


def test_who_is_dead():
    mine = Owner.here()
    assert not mine.is_dead
    assert replace(mine, started=mine.started - 1).is_dead  # its process number is another's now
    assert not replace(mine, namespace="other", started=1).is_dead
    assert not replace(mine, started=None).is_dead
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert replace(mine, pid=process.pid).is_dead  # a zombie
    assert replace(mine, pid=process.pid).is_dead
    assert not UNKNOWN.is_dead


def test_a_process_of_another_user_that_proc_hides_is_not_dead(monkeypatch):
    monkeypatch.setattr(leases, "_start_of", lambda pid: None)
    mine = replace(Owner.here(), started=1)
    assert not mine.is_dead

    def kill(pid, number):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    assert not mine.is_dead


# --- how it is kept ------------------------------------------------------------------------------


def test_it_is_renewed_while_it_is_held(folder, quick, wait_for):
    store, clock = quick(folder, stale_s=60.0), Clock()
    heartbeats, seen = Heartbeats(store, clock=clock), set()
    with take(store) as lease:
        for _ in range(5):
            wait_for(lambda: version_of(store).token not in seen)
            seen.add(version_of(store).token)
            assert owner_of(heartbeats, store) is not None
            clock.now += store.stale_s - 0.01
        assert not is_lost(lease)


@pytest.mark.parametrize("skew_s", [-600.0, 600.0])
def test_clocks_that_differ_by_minutes_change_nothing(folder, quick, wait_for, monkeypatch, skew_s):
    """The contender's own, and that of the file system or bucket."""
    store, clock = quick(folder, stale_s=60.0), Clock()
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + skew_s)
    heartbeats, seen = Heartbeats(store, clock=clock), set()

    def owner():
        version = version_of(store)
        seen.add(version.token)
        return heartbeats.owner("x", version._replace(mtime=version.mtime + 3 * skew_s))

    with take(store) as lease:
        for n in range(3):
            wait_for(lambda: version_of(store).token not in seen)
            if not is_bucket(folder):
                os.utime(folder / "x" / LEASE, (n, n))  # the holder renews it all the same
            assert owner() is not None
            clock.now += store.stale_s - 0.01
            assert owner() is not None
        assert not is_lost(lease)


def test_a_look_that_claims_nothing_judges_by_the_time_of_the_file(folder, quick):
    store = quick(folder)
    version = acquire(store, "x", ELSEWHERE, None)
    old = version._replace(mtime=time.time() - store.stale_s - 1)
    assert Heartbeats(store, trust_mtime=True).owner("x", old) is None
    assert Heartbeats(store, trust_mtime=True).owner("x", version) == ELSEWHERE
    assert Heartbeats(store).owner("x", old) is not None
    shown = Heartbeats(store, trust_mtime=True)
    shown.owner("x", old)
    assert shown.ages() == {}


def test_what_one_process_has_watched_another_need_not_watch_again(folder, quick):
    store, there, here = quick(folder, stale_s=60.0), Clock(), Clock()
    version = acquire(store, "x", ELSEWHERE, None)
    watcher = Heartbeats(store, clock=there)
    assert watcher.owner("x", version) is not None
    there.now += 50.0
    (token, age) = watcher.ages()["x"]
    assert (token, age) == (version.token, 50.0)
    here.now += 1000.0

    def heir() -> Heartbeats:
        return Heartbeats(store, seen={"x": (token, here.now - age)}, clock=here)

    waits, late = heir(), heir()
    assert waits.owner("x", version) is not None
    renewed = store.touch("x", LEASE, store.read("x", LEASE), version)
    here.now += 10.1
    assert waits.owner("x", version) is None
    assert late.owner("x", renewed) is not None  # nobody has watched this version
    here.now += 60.1
    assert late.owner("x", renewed) is None


ERRORS = [
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    RecordError("cannot write gs://b/s: 503"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["ESTALE", "EIO", "503"])
def test_errors_for_less_than_the_limit_are_survived(folder, quick, wait_for, error, monkeypatch):
    store = quick(folder, stale_s=5.0)
    touch, failures = store.touch, []

    def fail(*args):
        failures.append(1)
        raise error

    with take(store) as lease:
        monkeypatch.setattr(store, "touch", fail)
        wait_for(lambda: len(failures) > 5)
        monkeypatch.setattr(store, "touch", touch)
        before = version_of(store)
        wait_for(lambda: version_of(store) != before)
        assert not is_lost(lease)
    assert owner_of(Heartbeats(store), store) is None  # and it is released


@pytest.mark.parametrize("error", ERRORS[1:], ids=["EIO", "503"])
def test_a_holder_that_cannot_renew_stops_before_a_contender_may_begin(
    folder, quick, wait_for, error, monkeypatch
):
    store, contender = quick(folder, stale_s=0.3), quick(folder, stale_s=0.3)
    heartbeats = Heartbeats(contender)

    def fail(*args):
        raise error

    with take(store) as lease:
        version = version_of(contender)
        monkeypatch.setattr(store, "touch", fail)
        while heartbeats.owner("x", version_of(contender)) is not None:
            pass
        assert is_lost(lease)
        version = version_of(contender)
        assert acquire(contender, "x", ELSEWHERE, version) is not None
        monkeypatch.undo()  # the storage is back
        assert is_lost(lease)
    assert parse_owner(contender.read("x", LEASE)) == ELSEWHERE


@pytest.mark.parametrize("fault", [429, 503, 0])
def test_a_bucket_that_refuses_is_survived_until_the_limit(gate, quick, wait_for, fault):
    store, direct = quick(gate.root / "s", stale_s=5.0), gate.root / "s"
    with take(store) as lease:
        gate.always = fault
        before = lease._renewed
        time.sleep(0.1)  # several heartbeats
        gate.always = None
        wait_for(lambda: lease._renewed > before)
        assert not is_lost(lease)
        store.stale_s = 0.3
        gate.always = fault
        wait_for(lambda: is_lost(lease))
        gate.always = None
        assert is_lost(lease)
    with take(quick(direct)):  # it was still its own, so it freed it
        pass


def test_the_time_that_a_claim_takes_counts(folder, quick):
    """Nothing renews the lease until the attempt is recorded."""
    store = quick(folder)
    owner, began = Owner.here(), monotonic() - store.stale_s - 0.01
    version = acquire(store, "x", owner, None)
    with Lease(store, "x", owner, version, began) as lease:
        assert is_lost(lease)


def test_a_holder_that_was_taken_over_notices_and_leaves_the_new_lease_alone(
    folder, quick, wait_for
):
    store = quick(folder)
    old = take(store).start()
    wait_for(lambda: acquire(store, "x", ELSEWHERE, version_of(store)) is not None)
    wait_for(lambda: is_lost(old))
    old.release()
    assert parse_owner(store.read("x", LEASE)) == ELSEWHERE


def test_a_stopped_holder_writes_nothing_once_it_was_taken_over(
    folder, quick, wait_for, tmp_path, start
):
    rows = tmp_path / "rows"
    holder = start("-c", HOLDER, str(folder), str(rows))
    wait_for(lambda: rows.exists() and rows.stat().st_size)
    store = quick(folder)
    heartbeats = Heartbeats(store)
    assert owner_of(heartbeats, store) is not None
    holder.send_signal(signal.SIGSTOP)
    wait_for(lambda: owner_of(heartbeats, store) is None)
    with take(store) as lease:
        written = rows.stat().st_size
        holder.send_signal(signal.SIGCONT)
        assert "its lease could not be renewed" in holder.communicate(timeout=60)[0]
        # It may have been stopped between the check and the write of one row.
        assert rows.stat().st_size <= written + len("row\n")
        assert not is_lost(lease)
        assert parse_owner(store.read("x", LEASE)) == lease.owner


def test_a_path_of_a_bucket_is_resolved_by_the_holder(gcs):
    """`HOLDER` and workers get the folder as a text."""
    folder = resolve(f"gs://{gcs.bucket()}/runs/s")
    assert open_store(resolve(str(folder)))._prefix == "runs/s"
