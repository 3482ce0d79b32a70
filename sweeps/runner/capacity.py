"""What machines a cluster has for cells, and how many more of each kind could start one now.

A slice counts when all of its hosts are there and none of them is about to be taken away. Our own
cells are counted from the moment they are submitted, for it takes Ray seconds to show that a slice
is taken; those of others are what Ray says is busy.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from study.config.hardware import Slice, get_slice

LOCAL = "local"  # the kind of a cell that asks for no machine: a process beside others
Node = Mapping[str, Any]  # as `ray.nodes()` shows one


def kind_of(execution_slice: str | None) -> str:
    """The kind of machine of a cell, from its `Execution.slice`, in the one spelling we use."""
    name = LOCAL if execution_slice is None else _slice(execution_slice).name
    return LOCAL if name == "cpu" else name


def pod_of(kind: str) -> str:
    """What cells of this kind compete for: v4-32x2 takes two of the v4-32."""
    if kind == LOCAL:
        return LOCAL
    found = _slice(kind)
    return found.chip.name if found.chip.kind == "gpu" else found.pod


@dataclass(frozen=True, kw_only=True)
class Census:
    """Of one kind: how many cells the cluster could run at once, and how many could start now."""

    whole: int = 0
    idle: int = 0


def census(
    kind: str,
    nodes: Iterable[Node],
    available: Mapping[str, Mapping[str, float]],
    draining: Collection[str] = (),
) -> Census:
    """Counts the machines of a kind.

    Arguments:
      nodes: of the cluster.
      available: resources that nobody uses, by node id; a node that is missing is idle.
      draining: ids of nodes that are about to go.
    """
    wanted = _slice(kind)
    here = [n for n in nodes if n["Alive"] and n["NodeID"] not in draining]
    if wanted.chip.kind == "gpu":
        return _gpus(wanted, here, available)
    if wanted.chip.kind == "cpu":
        hosts = cpu_hosts(here)
        idle = sum(_free(n, "CPU", available) >= cores(hosts) for n in hosts)
        return Census(whole=len(hosts) // wanted.hosts, idle=idle // wanted.hosts)
    found = defaultdict(list)
    for node in here:
        labels = _labels(node)
        if labels.get("ray.io/tpu-pod-type") == wanted.pod_type:
            found[labels.get("ray.io/tpu-slice-name") or node["NodeID"]].append(node)
    whole = [hosts for hosts in found.values() if len(hosts) == wanted.hosts_per_slice]
    idle = sum(
        all(_free(n, "TPU", available) >= n["Resources"].get("TPU", 0) for n in hosts)
        for hosts in whole
    )
    return Census(whole=len(whole) // wanted.slices, idle=idle // wanted.slices)


class Pool:
    """How many cells of each kind may start.

    Arguments:
      local: cells at a time in processes beside others.
      caps: cells at a time by kind; what is not named may fill the cluster.
      at_once: cells at a time of all kinds together.
    """

    def __init__(self, *, local: int, caps: Mapping[str, int], at_once: int | None = None):
        self.caps = {LOCAL: local, **caps}
        self.at_once = at_once
        self.running: Counter[str] = Counter()
        self._found: dict[str, Census] = {}

    def look(
        self,
        kinds: Iterable[str],
        nodes: Iterable[Node],
        available: Mapping[str, Mapping[str, float]],
        draining: Collection[str] = (),
    ) -> None:
        """Counts anew what the cluster has."""
        nodes = list(nodes)
        self._found = {k: census(k, nodes, available, draining) for k in kinds if k != LOCAL}

    def whole(self, kind: str) -> int:
        """How many cells of the kind the cluster could run at once."""
        return self.caps[LOCAL] if kind == LOCAL else self._found.get(kind, Census()).whole

    def allowed(self, kind: str) -> int:
        """How many more cells of the kind may start, if there are machines for them."""
        room = self.caps.get(kind, 10**6) - self.running[kind]
        if self.at_once is not None:
            room = min(room, self.at_once - self.running.total())
        return max(0, room)

    def room(self, kind: str) -> int:
        """How many more cells of the kind may start now."""
        room = self.allowed(kind)
        if kind == LOCAL:
            return room
        found, each = self._found.get(kind, Census()), _units(kind)
        taken = sum(n * _units(k) for k, n in self.running.items() if pod_of(k) == pod_of(kind))
        ours = (found.whole * each - taken) // each
        return max(0, min(room, ours, found.idle))


def steady(nodes: Iterable[Node]) -> list[str]:
    """Ids of the nodes that nobody takes away: no accelerators, and not said to be spot."""
    return [
        n["NodeID"]
        for n in nodes
        if n["Alive"]
        and not _labels(n)
        and not n["Resources"].get("GPU")
        and (n.get("Labels") or {}).get("ray.io/market-type") != "spot"
    ]


def cpu_hosts(nodes: Iterable[Node]) -> list[Node]:
    """The nodes that are up and have cores and no accelerators."""
    here = [n for n in nodes if n["Alive"] and n["Resources"].get("CPU")]
    return [n for n in here if not _labels(n) and not n["Resources"].get("GPU")]


def cores(hosts: Iterable[Node]) -> float:
    """What a cell takes of each of `hosts`: all cores, where they are alike."""
    return min((n["Resources"]["CPU"] for n in hosts), default=1.0)


def _units(kind: str) -> int:
    """How many of its pod one cell takes: slices, or GPUs."""
    if kind == LOCAL:
        return 1
    found = _slice(kind)
    return found.chips if found.chip.kind == "gpu" else found.slices


def _gpus(wanted: Slice, nodes: list[Node], available: Mapping[str, Mapping[str, float]]) -> Census:
    mark = f"accelerator_type:{wanted.accelerator_type}"
    hosts = [n for n in nodes if mark in n["Resources"]]
    each = wanted.chips_per_host
    whole = sum(int(n["Resources"].get("GPU", 0)) // each for n in hosts)
    idle = sum(int(_free(n, "GPU", available)) // each for n in hosts)
    return Census(whole=whole // wanted.hosts, idle=idle // wanted.hosts)


def _free(node: Node, what: str, available: Mapping[str, Mapping[str, float]]) -> float:
    there = node["Resources"].get(what, 0.0)
    mine = available.get(node["NodeID"])
    return there if mine is None else mine.get(what, 0.0)


def _labels(node: Node) -> Mapping[str, str]:
    labels = node.get("Labels") or {}
    return {k: v for k, v in labels.items() if k.startswith("ray.io/tpu-")}


@functools.cache
def _slice(kind: str) -> Slice:
    return get_slice(kind)
