"""A lease in a bucket, which has neither locks nor rename, is held by one at most."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from study.records.storage import resolve, write_new
from sweeps.runner.lease_bucket import BucketLease
from sweeps.runner.lease_file import LEASE, Holder, Lease, LeaseHeld, LeaseLost, holder_of
from tests.bucket import Strict

ELSEWHERE = Holder(machine="elsewhere", pid=1, started=1, token="0" * 16)


@pytest.fixture
def path():
    Strict.clear()
    return resolve("bucket://lab/runs/s/x") / LEASE


def of_elsewhere(path, *, age):
    write_new(path, json.dumps(asdict(ELSEWHERE)).encode())
    Strict.aged(str(path), age)


def names():
    return sorted(name.rpartition("/")[2] for name in Strict.objects)


def contend(path, count=8, rounds=1):
    """How many of so many threads get the lease, all at once."""
    ready = threading.Barrier(count)

    def attempt(_):
        ready.wait()
        try:
            return BucketLease.acquire(path)
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(count) as pool:
        return [lease for lease in pool.map(attempt, range(count)) if lease is not None]


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_that_contend_exactly_one_wins(path, left_behind):
    for _ in range(25):
        Strict.clear()
        if left_behind:
            of_elsewhere(path, age=1000)
        (won,) = contend(path)
        assert holder_of(path) == won.holder
        won.check()
        won.release()
        assert names() == []  # nothing is left behind


def test_nobody_gets_a_lease_by_what_was_seen_long_ago(path, monkeypatch):
    """One sees a stale lease and falls asleep; meanwhile it is taken over and given back."""
    from sweeps.runner import lease_bucket as bucket_lease

    of_elsewhere(path, age=1000)
    late = []

    def slow_age(there, real=bucket_lease._age):
        age = real(there)
        if not late:
            late.append(True)
            BucketLease.acquire(path).release()
            late.append(BucketLease.acquire(path))
        return age

    monkeypatch.setattr(bucket_lease, "_age", slow_age)
    with pytest.raises(LeaseHeld):
        BucketLease.acquire(path)
    assert holder_of(path) == late[1].holder
    late[1].release()
    assert names() == []


def test_a_live_lease_is_refused_with_a_line_that_says_who_holds_it(path):
    with Lease.acquire(path), pytest.raises(LeaseHeld, match=r"^x is being run by process \d+ on"):
        Lease.acquire(path)
    of_elsewhere(path, age=50)
    with pytest.raises(LeaseHeld, match="elsewhere"):
        Lease.acquire(path)
    Strict.aged(str(path), 100)
    assert holder_of(path) is None


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(path):
    dead = Holder.here()
    write_new(path, json.dumps(asdict(dead) | {"started": dead.started - 1}).encode())
    assert holder_of(path) is None
    with Lease.acquire(path) as lease:
        assert holder_of(path) == lease.holder


def test_a_lease_is_renewed_while_it_is_held(path, wait_for):
    with BucketLease.acquire(path, renew=0.01):
        Strict.aged(str(path), 1000)
        wait_for(lambda: holder_of(path) is not None)


def test_a_holder_that_was_taken_over_notices_and_leaves_the_new_lease_alone(path):
    old = BucketLease.acquire(path, renew=0.05)
    new = BucketLease.acquire(path, stale=-1.0)
    assert old.lost.wait(10)
    with pytest.raises(LeaseLost):
        old.check()
    old.release()
    assert holder_of(path) == new.holder
    new.release()
    assert names() == []


def test_a_holder_that_cannot_reach_the_bucket_counts_its_lease_as_lost(path, wait_for):
    lease = BucketLease.acquire(path, renew=0.01, stale=0.3)
    lease.check()
    Strict.broken.extend([OSError("no network")] * 10_000)

    def lost():
        try:
            lease.check()
        except LeaseLost:
            return True
        return False

    wait_for(lost)
    Strict.broken.clear()  # the network is back, but others may have been at work
    assert lease.lost.wait(10)
    lease.release()


def test_a_half_written_lease_counts_as_held_while_it_is_fresh(path):
    write_new(path, b'{"machine": "a')
    with pytest.raises(LeaseHeld):
        Lease.acquire(path)
    Strict.aged(str(path), 1000)
    with Lease.acquire(path):
        pass
