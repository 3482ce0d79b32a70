"""Simulates workers that claim the cells of a study from a bucket, with the claim code itself.

`Claimer`, `StudyState` and `Heartbeats` run as they are, against a store in memory that counts
requests. Time is virtual: a request takes `LATENCY_S`, training takes what the caller says. Workers
interleave at every request.
"""

from __future__ import annotations

import functools
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.config import Budget, Cell
from study.records.metrics_log import CellProgress
from study.records.record import CELL, DONE
from sweeps.bench.timeline import Timeline
from sweeps.runner.cell_status import CellStatus, StudyState
from sweeps.runner.claims import Claim, Claimer, Rank
from sweeps.runner.lease import Heartbeats
from sweeps.runner.store import LEASE, BucketStore, Listing, Version
from sweeps.study import StudyError

LATENCY_S = 0.05  # of a request
PAGE = 1000  # objects in one response of a listing, Google's limit
READS_AT_ONCE = 100
RESTART_S = 60.0  # from the death of a worker to the start of its successor
SPREAD = 0.6  # standard deviation of the logarithm of the cells' times
CHECKPOINT_S = 900.0  # of training between two checkpoints


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """The result.

    Attributes:
      seconds: until the last cell is finished.
      bound: the least seconds in which any order could end: the longest cell, or the work of a
        machine type spread evenly over its workers.
      failed: cells that were lost too often without getting further.
      deaths: of workers, in the middle of a cell.
      lost_claims: how often a lease was gone when a worker tried to take it.
      taken_twice: how often a cell was trained by two workers at once.
      requests: of all workers, by kind.
      peak: requests in the busiest second.
      worker_minutes: from the start of each worker to its end, summed.
      cells_per_worker: least, median and most.
    """

    seconds: float
    bound: float
    failed: int
    deaths: int
    lost_claims: int
    taken_twice: int
    requests: dict[str, int]
    peak: int
    worker_minutes: float
    cells_per_worker: tuple[int, int, int]

    @property
    def ratio(self) -> float:
        return self.seconds / self.bound

    @property
    def requests_per_worker_minute(self) -> float:
        return sum(self.requests.values()) / self.worker_minutes


def simulate(
    cells: Sequence[Cell],
    seconds: Mapping[str, float],
    ranks: Mapping[str, Rank],
    machines: Mapping[str, str],
    workers: Mapping[str, int],
    *,
    lifetime_s: float = math.inf,
    seed: int = 0,
) -> Simulated:
    """Trains `cells` in virtual time.

    Arguments:
      seconds, ranks, machines: of each cell, by its id.
      workers: number of workers by machine type.
      lifetime_s: mean time in which a worker dies without releasing its cell.
      seed: of deaths, and of the workers' random choices.

    Raises:
      StudyError: a cell has no worker.
    """
    if missing := sorted(set(machines.values()) - set(workers)):
        raise StudyError(f"the pool has no {', '.join(missing)}; add one with --pool TYPE=N")
    run = _Run(cells, seconds, ranks, machines, lifetime_s, seed)
    names = [(machine, f"{machine}/{k}") for machine, n in workers.items() for k in range(n)]
    run.timeline.run([functools.partial(run.work, machine, name) for machine, name in names])
    work = dict.fromkeys(workers, 0.0)
    for cell in cells:
        work[machines[cell.id]] += seconds[cell.id]
    counts = sorted(run.cells_by_worker[name] for _, name in names)
    return Simulated(
        seconds=max(run.finished.values()),
        bound=max(max(seconds.values()), *(work[m] / n for m, n in workers.items())),
        failed=len(cells) - len(run.finished),
        deaths=run.deaths,
        lost_claims=run.store.lost_claims,
        taken_twice=run.taken_twice,
        requests=dict(run.store.requests),
        peak=max(run.store.by_second.values()),
        worker_minutes=run.worker_seconds / 60,
        cells_per_worker=(counts[0], int(statistics.median(counts)), counts[-1]),
    )


def simulate_study(
    cells: int, workers: int, *, mean_s: float, lifetime_s: float = math.inf, seed: int = 0
) -> Simulated:
    """Simulates cells on one machine type, whose times are log-normal, and known to within 20 %."""
    generator = random.Random(seed)
    study = [Cell(batch_size=16, seed=k, budget=Budget(examples=16)) for k in range(cells)]
    seconds = {c.id: mean_s * generator.lognormvariate(-(SPREAD**2) / 2, SPREAD) for c in study}
    ranks = {id: Rank(seconds=s * generator.lognormvariate(0.0, 0.2)) for id, s in seconds.items()}
    machines = dict.fromkeys(seconds, "v4-32")
    return simulate(
        study, seconds, ranks, machines, {"v4-32": workers}, lifetime_s=lifetime_s, seed=seed
    )


class MemoryStore:
    """A `Store` in memory that takes virtual time and counts requests as a bucket does."""

    renew_s, stale_s, poll_s = BucketStore.renew_s, BucketStore.stale_s, BucketStore.poll_s
    reads_are_cheap = False

    def __init__(self, timeline: Timeline):
        self.requests: Counter[str] = Counter()
        self.by_second: Counter[int] = Counter()
        self.lost_claims = 0
        self._timeline = timeline
        self._files: dict[str, dict[str, Version]] = {}  # the inner ones are never changed
        self._contents: dict[tuple[str, str], bytes] = {}
        self._count = self._generation = 0
        self._beating: dict[str, tuple[float, float]] = {}  # by cell: from when, until when

    def list(self, cell: str | None = None, *, skip: Collection[str] = ()) -> Listing:
        del skip  # a bucket lists them all the same
        if cell is not None:
            self._request("list", 1)
            return {cell: self._current(cell)}
        # Pages come one after another. All are as old as the first, which is the worst case.
        listing = dict(self._files)
        listing |= {cell: self._current(cell) for cell in self._beating}
        for _ in range(max(1, math.ceil(self._count / PAGE))):
            self._request("list", 1)
        return listing

    def read(self, cell: str, name: str) -> bytes | None:
        return self.read_many([(cell, name)]).get((cell, name))

    def read_many(self, files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        keys = list(files)
        for i in range(0, len(keys), READS_AT_ONCE):
            self._request("read", len(keys[i : i + READS_AT_ONCE]))
        return {key: self._contents[key] for key in keys if key in self._contents}

    def write(self, cell: str, name: str, content: dict[str, Any]) -> None:
        self._request("write", 1)
        self._put(cell, name, json.dumps(content).encode())

    def swap(
        self, cell: str, name: str, content: bytes, expected: Version | None
    ) -> Version | None:
        self._request("write", 1)
        if self._current(cell).get(name) != expected:
            if content:
                self.lost_claims += 1
                self.read(cell, name)  # whether the first of two equal requests has succeeded
            return None
        return self._put(cell, name, content)

    def touch(self, cell: str, name: str, content: bytes, held: Version) -> Version | None:
        return self.swap(cell, name, content, held)

    def beat(self, cell: str, until: float) -> None:
        """Renews the lease of `cell`, from now until a time."""
        self._beating[cell] = (self._timeline.now, until)

    def still(self, cell: str) -> Version | None:
        """Ends the heartbeat of a cell; the version of its lease."""
        version = self._current(cell).get(LEASE)
        if (beats := self._beating.pop(cell, None)) is not None and version is not None:
            self._files[cell] = {**self._files[cell], LEASE: version}
            self.count("heartbeat", beats[0], min(beats[1], self._timeline.now), self.renew_s)
        return version

    def count(self, kind: str, since: float, until: float, every: float) -> None:
        """Counts requests that nobody waits for."""
        times = [since + every * k for k in range(1, int((until - since) / every) + 1)]
        self.requests[kind] += len(times)
        self.by_second.update(map(int, times))

    def _current(self, cell: str) -> dict[str, Version]:
        files = self._files.get(cell, {})
        if cell not in self._beating:
            return files
        since, until = self._beating[cell]
        beats = int((min(until, self._timeline.now) - since) / self.renew_s)
        if not beats:
            return files
        token, size, _ = files[LEASE]
        return {**files, LEASE: Version(f"{token}.{beats}", size, since + beats * self.renew_s)}

    def _put(self, cell: str, name: str, content: bytes) -> Version:
        self.still(cell)
        self._generation += 1
        version = Version(str(self._generation), len(content), self._timeline.now)
        files = self._files.get(cell, {})
        self._count += name not in files
        self._files[cell] = {**files, name: version}
        self._contents[cell, name] = content
        return version

    def _request(self, kind: str, number: int) -> None:
        self.requests[kind] += number
        self.by_second[int(self._timeline.now)] += number
        self._timeline.sleep(LATENCY_S)


class _State(StudyState):
    """Shares the statuses of cells without files, which are equal, for a thousand workers."""

    def __init__(self, unstarted: dict[str, CellStatus], *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._unstarted = unstarted

    def _status(self, id: str, files: Mapping[str, Version]) -> CellStatus:
        if files or id not in self._unstarted:
            status = super()._status(id, files)
            return status if files else self._unstarted.setdefault(id, status)
        return self._unstarted[id]


class _Run:
    """The simulated workers."""

    def __init__(
        self,
        cells: Sequence[Cell],
        seconds: Mapping[str, float],
        ranks: Mapping[str, Rank],
        machines: Mapping[str, str],
        lifetime_s: float,
        seed: int,
    ):
        self.timeline = Timeline()
        self.store = MemoryStore(self.timeline)
        self.finished: dict[str, float] = {}
        self.cells_by_worker: Counter[str] = Counter()
        self.deaths = self.taken_twice = 0
        self.worker_seconds = 0.0
        self._seconds, self._ranks, self._lifetime_s, self._seed = seconds, ranks, lifetime_s, seed
        self._cells: dict[str, list[Cell]] = {}
        for cell in cells:
            self._cells.setdefault(machines[cell.id], []).append(cell)
        self._trained: dict[str, float] = {}  # by cell: seconds up to its last checkpoint
        self._training: set[str] = set()
        self._unstarted: dict[str, CellStatus] = {}

    def work(self, machine: str, name: str) -> None:
        """A machine: its worker, and after the death of that one the next."""
        generator = random.Random(f"{self._seed} {name}")
        while self._cells.get(machine) and not self._work_until_death(machine, name, generator):
            self.deaths += 1
            self.timeline.sleep(RESTART_S)

    def _work_until_death(self, machine: str, name: str, generator: random.Random) -> bool:
        """Whether all cells are finished."""
        began = self.timeline.now
        dies = began + self._lifetime_s * generator.expovariate(1.0)
        state = _State(
            self._unstarted,
            self._cells[machine],
            Path("simulated"),
            store=self.store,
            heartbeats=Heartbeats(self.store, clock=lambda: self.timeline.now),
            for_claims=True,
            read_progress=self._progress,
        )
        claimer = Claimer(state, self._ranks, worker=name, seed=generator.randrange(1 << 30))
        alive = True
        while alive:
            looked = self.timeline.now
            claims = claimer.next()
            if claims.claim is not None:
                alive = self._train(claims.claim, name, dies)
            elif claims.left:
                self.timeline.sleep(claimer.idle_s(self.timeline.now - looked))
            else:
                break
        self.worker_seconds += self.timeline.now - began
        return alive

    def _train(self, claim: Claim, name: str, dies: float) -> bool:
        """Trains the cell; False if the worker dies in the middle."""
        store, id, began = self.store, claim.status.cell.id, self.timeline.now
        done = self._trained.get(id, 0.0)
        ends = min(dies, began + self._seconds[id] - done)
        self.taken_twice += id in self._training
        self._training.add(id)
        store.beat(id, ends)
        if not done:
            store.write(id, CELL, {})
            store.beat(id, ends)
        self.timeline.sleep(max(0.0, ends - self.timeline.now))
        store.count("mark", began, ends, store.poll_s)
        self._training.discard(id)
        if ends == dies:
            self._trained[id] = done + (ends - began) // CHECKPOINT_S * CHECKPOINT_S
            return False
        store.write(id, DONE, {"status": "done"})
        self.finished[id] = self.timeline.now
        self.cells_by_worker[name] += 1
        # As `_Leader.finish` does, without the heartbeat's thread.
        claim.attempts.end("done", at=self.timeline.now).save(store, id)
        lease = store.still(id)
        assert lease is not None
        store.swap(id, LEASE, b"", lease)
        return True

    def _progress(self, folder: Path) -> CellProgress:
        """How far a cell was when its worker died."""
        self.store.requests["read"] += 2  # at the same time as others, so it takes no time here
        trained = self._trained.get(folder.name, 0.0)
        examples = int(1e6 * trained / self._seconds[folder.name])
        return CellProgress(step=examples, examples_seen=examples, attempts=1)
