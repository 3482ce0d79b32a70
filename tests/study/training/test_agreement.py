"""Processes exchange after the same chunks whatever their clocks say, and seldom."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from study.training import multihost
from study.training.multihost import Agreement

SECONDS = 5.0
CHUNKS = 400


class Processes:
    """Threads in the place of processes: each has a clock, and an exchange waits for all."""

    def __init__(self, count: int, monkeypatch):
        self.count = count
        self.votes = [np.empty(0)] * count
        self.clocks = [0.0] * count
        self.local = threading.local()
        self.barrier = threading.Barrier(count, timeout=20)  # breaks if they disagree
        clock = SimpleNamespace(monotonic=lambda: self.clocks[self.local.rank])
        monkeypatch.setattr(multihost, "time", clock)
        monkeypatch.setattr(multihost.jax, "process_count", lambda: count)
        monkeypatch.setattr(multihost.multihost_utils, "process_allgather", self.gather)

    def gather(self, vote):
        self.votes[self.local.rank] = vote
        self.barrier.wait()
        votes, now = np.stack(self.votes), max(self.clocks)
        self.barrier.wait()
        self.clocks[self.local.rank] = now
        return votes

    def run(self, train):
        """The results of `train(rank)` of all processes."""

        def process(rank):
            self.local.rank = rank
            return train(rank)

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(process, range(self.count)))


@pytest.mark.parametrize("seed", range(20))
def test_all_processes_exchange_after_the_same_chunks(seed, monkeypatch):
    rng = random.Random(seed)
    processes = Processes(rng.choice([2, 3, 5]), monkeypatch)
    now = {chunk for chunk in range(CHUNKS) if rng.random() < 0.01}
    stops = [rng.randrange(CHUNKS) for _ in range(processes.count)]
    speed = 10 ** rng.uniform(-4, 1)
    durations = [
        [speed * 10 ** rng.uniform(-1, 1) for _ in range(CHUNKS)] for _ in range(processes.count)
    ]

    def train(rank):
        agreement, exchanges, intervals = Agreement(), [], [1]
        for chunk in range(CHUNKS):
            processes.clocks[rank] += durations[rank][chunk]
            if agreement.due(now=chunk in now):
                exchanges.append((chunk, *agreement.exchange(chunk >= stops[rank], False)))
                intervals.append(agreement.interval)
        return exchanges, intervals

    results = processes.run(train)
    assert all(result == results[0] for result in results)
    exchanges, intervals = results[0]
    assert now <= {chunk for chunk, *_ in exchanges}
    assert [stop for _, stop, _ in exchanges] == [chunk >= min(stops) for chunk, *_ in exchanges]
    assert not any(save for *_, save in exchanges)
    assert all(1 <= b <= 2 * a for a, b in itertools.pairwise(intervals))


@pytest.mark.parametrize("seconds", [0.001, 0.07, 0.3, 2.4, 5.1, 60.0])
def test_exchanges_come_every_five_seconds_of_the_slowest_process(seconds, monkeypatch):
    processes = Processes(2, monkeypatch)

    def train(rank):
        agreement, times = Agreement(), []
        while len(times) < 40:
            processes.clocks[rank] += seconds if rank else seconds / 10
            if agreement.due(now=False):
                agreement.exchange(False)
                times.append(processes.clocks[rank])
        return times

    fast, slow = processes.run(train)
    assert fast == slow
    gaps = np.diff(slow)
    assert max(gaps) <= max(SECONDS, seconds) * 1.001
    assert gaps[-1] >= SECONDS / 2


def test_one_process_exchanges_after_each_chunk_and_with_nobody(monkeypatch):
    monkeypatch.setattr(
        multihost.multihost_utils, "process_allgather", lambda *_: pytest.fail("exchanged")
    )
    agreement = Agreement()
    for _ in range(10):
        assert agreement.due(now=False)
        assert agreement.exchange(True, False) == [True, False]
