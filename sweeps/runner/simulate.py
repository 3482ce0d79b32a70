"""How long a study would take on a pool of slices, with the queue and the pool that `run` uses.

A simulation by events: nothing is trained, time jumps from one end of a cell to the next. What is
simulated is the order and the admission; how long a cell takes is given.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.config.hardware import get_slice
from sweeps.runner.capacity import Pool, pod_of
from sweeps.runner.cell_status import Entry
from sweeps.runner.job_queue import Job, Queue, admitted, priorities
from sweeps.runner.placing import kinds
from sweeps.study import Study, StudyError


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Seconds. No order of the cells could end before `bound`."""

    makespan: float
    bound: float

    @property
    def ratio(self) -> float:
        return self.makespan / self.bound


def simulate(
    study: Study,
    entries: Sequence[Entry],
    seconds: Mapping[str, float],
    slices: Mapping[str, int],
) -> Simulated:
    """Runs `study` on so many slices of each kind.

    Arguments:
      entries: of its cells, from the ledger.
      seconds: that each cell takes, its start included, by id.
      slices: how many there are by kind, such as {"v4-32": 8}.

    Raises:
      StudyError: a cell wants a kind that there is none of.
    """
    machines = kinds(study)
    lacking = sorted({pod_of(kind) for kind in machines.values()} - set(slices))
    if lacking:
        raise StudyError(f"the pool has no {', '.join(lacking)}; add one with --pool KIND=N")
    queue = Queue(entries, backoff=0.0, ahead=priorities(study), kinds=machines)
    pool = Pool(local=0, caps={})
    nodes = [node for pod, count in slices.items() for node in _nodes(pod, count)]
    ends: list[tuple[float, int, Job]] = []
    number, now = itertools.count(), 0.0
    while ends or len(queue):
        pool.look(set(machines.values()), nodes, {})  # ours are what `running` counts
        for job in admitted(queue, pool, now):
            queue.take(job)
            pool.running[job.kind] += 1
            heapq.heappush(ends, (now + seconds[job.entry.cell.id], next(number), job))
        now, _, job = heapq.heappop(ends)
        pool.running[job.kind] -= 1
    return Simulated(makespan=now, bound=_bound(machines, seconds, slices))


def _bound(machines: Mapping[str, str], seconds: Mapping[str, float], slices: Any) -> float:
    """The longest cell, or the work for one kind of slice evenly spread over all of them."""
    work: dict[str, float] = dict.fromkeys(slices, 0.0)
    for cell_id, kind in machines.items():
        work[pod_of(kind)] += seconds[cell_id] * get_slice(kind).slices
    spread = max(work[pod] / count for pod, count in slices.items())
    return max(spread, max(seconds[cell_id] for cell_id in machines))


def _nodes(pod: str, count: int) -> list[dict[str, Any]]:
    """As Ray would show the hosts of so many slices."""
    wanted = get_slice(pod)
    return [
        {
            "NodeID": f"{pod}/{i}/{host}",
            "Alive": True,
            "Resources": {"TPU": wanted.chips_per_host},
            "Labels": {
                "ray.io/tpu-slice-name": f"{pod}/{i}",
                "ray.io/tpu-pod-type": wanted.pod_type,
            },
        }
        for i in range(count)
        for host in range(wanted.hosts)
    ]
