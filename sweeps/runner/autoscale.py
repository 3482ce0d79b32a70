"""Asks the cluster for the machines that cells wait for, in case it can bring them up.

An autoscaler, Ray's own or KubeRay's, starts machines for what is asked for and cannot be had; a
cell that waits outside of Ray asks for nothing. So a placement group is left waiting for each
machine that is wanted. It is never used: once it has what it asked for it is taken back, and the
cell is submitted as ever. It goes with the driver, and where nothing scales it does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from study.config.hardware import get_slice
from sweeps.runner.capacity import LOCAL, Pool
from sweeps.runner.job_queue import Job

AT_ONCE = 4  # machines of a kind that are asked for at a time


def short(waiting: Iterable[Job], pool: Pool) -> dict[str, int]:
    """How many machines of each kind would let another of the cells that wait start now.

    Of GPUs and CPUs only where there are none: what is asked for is had for a moment, and that
    would keep a cell from the GPU that another has just left. Of a slice it is no more than a mark.
    """
    counts: dict[str, int] = {}
    for job in waiting:
        if job.kind != LOCAL:
            counts[job.kind] = counts.get(job.kind, 0) + 1
    return {
        kind: lacking
        for kind, count in counts.items()
        if (get_slice(kind).chip.kind == "tpu" or not pool.whole(kind))
        and (lacking := min(AT_ONCE, count, pool.allowed(kind)) - pool.room(kind)) > 0
    }


def bundles(kind: str) -> list[dict[str, float]]:
    """What Ray is asked for. Of a slice its head: an autoscaler brings slices up whole."""
    wanted = get_slice(kind)
    if wanted.chip.kind == "tpu":
        return [{f"TPU-{wanted.pod_type}-head": 1.0}] * wanted.slices
    if wanted.chip.kind == "gpu":
        mark = f"accelerator_type:{wanted.accelerator_type}"
        return [{"GPU": float(wanted.chips_per_host), mark: 0.001}] * wanted.hosts
    return [{"CPU": 1.0}] * wanted.hosts


class Asking:
    """What one driver has asked for."""

    def __init__(self) -> None:
        self._asked: dict[str, list[Any]] = {}

    def want(self, wanted: Mapping[str, int]) -> None:
        """Asks for so many machines of each kind, and for no others any more."""
        from ray.util import placement_group, placement_group_table, remove_placement_group

        for kind in {*self._asked, *wanted}:
            still: list[Any] = []
            had = False
            for group in self._asked.get(kind, []):
                waits = placement_group_table(group)["state"] == "PENDING"
                had = had or not waits
                if waits and len(still) < wanted.get(kind, 0):
                    still.append(group)
                else:
                    remove_placement_group(group)
            # Where one was had, the next look at the cluster may find a machine without it.
            while len(still) < wanted.get(kind, 0) and not had:
                still.append(placement_group(bundles(kind), strategy="SPREAD"))
            self._asked[kind] = still

    def forget(self) -> None:
        """What was asked for went with the cluster."""
        self._asked.clear()
