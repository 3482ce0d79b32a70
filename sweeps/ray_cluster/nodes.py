"""Which nodes of a Ray cluster make up a machine of a type, and which of these are idle.

A slice counts when all of its hosts are up and none of them is about to be taken away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from study.config.hardware import Slice, get_slice

Node = Mapping[str, Any]  # as `ray.nodes()` shows one
Bundle = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What a cluster has now."""

    alive: list[Node]  # that are up
    # Resources that nobody uses, by node id; a node that is missing is idle.
    available: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    draining: Collection[str] = ()  # ids of nodes that are about to be taken away

    @classmethod
    def look(cls) -> Nodes:
        """Those of the cluster that this process has joined."""
        import ray
        from ray._private.state import available_resources_per_node

        return cls(
            alive=[node for node in ray.nodes() if node["Alive"]],
            available=available_resources_per_node(),
            draining=draining(),
        )

    def machines(self, machine: str, *, idle: bool = False) -> list[list[Node]]:
        """All machines of a type, or those that are idle: the nodes of each, in order of rank."""
        wanted = get_slice(machine)
        staying = [node for node in self.alive if node["NodeID"] not in self.draining]
        if wanted.chip.kind == "tpu":
            return self._slices(wanted, staying, idle)
        if wanted.chip.kind == "gpu":
            mark, each = f"accelerator_type:{wanted.accelerator_type}", wanted.chips_per_host
            hosts = [
                node
                for node in staying
                if mark in node["Resources"]
                for _ in range(int(self._count(node, "GPU", idle)) // each)
            ]
        else:
            hosts = [
                node
                for node in cpu_hosts(staying)
                if self._count(node, "CPU", idle) >= node["Resources"]["CPU"]
            ]
        return _groups([[host] for host in hosts], wanted.hosts)

    def incomplete(self, machine: str) -> list[str]:
        """Names of slices of this type of which a host is missing, or about to go."""
        wanted = get_slice(machine)
        usable = {node["NodeID"] for nodes in self.machines(wanted.pod) for node in nodes}
        return sorted(
            {
                _labels(node).get("ray.io/tpu-slice-name", "")
                for node in self.alive
                if _labels(node).get("ray.io/tpu-pod-type") == wanted.pod_type
                and node["NodeID"] not in usable
            }
            - {""}
        )

    def cores(self) -> int:
        """Free cores of the nodes without accelerators."""
        return int(sum(self._count(node, "CPU", True) for node in cpu_hosts(self.alive)))

    def stable(self) -> list[str]:
        """Ids of the nodes that nobody takes away: no accelerators, and not known to be spot."""
        return [
            node["NodeID"]
            for node in self.alive
            if not _labels(node)
            and not node["Resources"].get("GPU")
            and (node.get("Labels") or {}).get("ray.io/market-type") != "spot"
            and node["NodeID"] not in self.draining
        ]

    def _slices(self, wanted: Slice, nodes: list[Node], idle: bool) -> list[list[Node]]:
        hosts_by_slice = defaultdict(list)
        for node in nodes:
            labels = _labels(node)
            if labels.get("ray.io/tpu-pod-type") == wanted.pod_type:
                name = labels.get("ray.io/tpu-slice-name") or node["NodeID"]
                hosts_by_slice[name].append(node)
        whole = [
            sorted(hosts, key=lambda node: int(_labels(node).get("ray.io/tpu-worker-id", 0)))
            for hosts in hosts_by_slice.values()
            if len(hosts) == wanted.hosts_per_slice
            and all(self._count(n, "TPU", idle) >= n["Resources"].get("TPU", 0) for n in hosts)
        ]
        return _groups(whole, wanted.slices)

    def _count(self, node: Node, resource: str, idle: bool) -> float:
        total: float = node["Resources"].get(resource, 0.0)
        free = self.available.get(node["NodeID"])
        return total if free is None or not idle else free.get(resource, 0.0)


def draining() -> set[str]:
    """Ids of the nodes that are about to be taken away."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def bundles(machine: str, nodes: Iterable[Node]) -> list[Bundle]:
    """What a worker takes of each node of a machine: all chips, GPUs that it asks for, or cores.

    With a slice its head goes too, by which Ray Train and others reserve slices.
    """
    wanted = get_slice(machine)
    if wanted.chip.kind == "gpu":
        return [{"GPU": float(wanted.chips_per_host)} for _ in nodes]
    names = ("TPU", f"TPU-{wanted.pod_type}-head") if wanted.chip.kind == "tpu" else ("CPU",)
    return [
        {name: count for name, count in node["Resources"].items() if name in names}
        for node in nodes
    ]


def demand(machine: str) -> list[Bundle]:
    """What to ask an autoscaler for. Of a slice its head, because slices come up whole."""
    wanted = get_slice(machine)
    if wanted.chip.kind == "tpu":
        return [{f"TPU-{wanted.pod_type}-head": 1.0}] * wanted.slices
    if wanted.chip.kind == "gpu":
        mark = f"accelerator_type:{wanted.accelerator_type}"
        return [{"GPU": float(wanted.chips_per_host), mark: 0.001}] * wanted.hosts
    return [{"CPU": 1.0}] * wanted.hosts


def cpu_hosts(nodes: Iterable[Node]) -> list[Node]:
    """Those of `nodes` that have cores and no accelerators."""
    return [
        node
        for node in nodes
        if node["Resources"].get("CPU") and not _labels(node) and not node["Resources"].get("GPU")
    ]


def on_nodes(ids: Iterable[str]) -> dict[str, str]:
    """A label selector: Ray finds no node if there is a space between two ids."""
    return {"ray.io/node-id": f"in({','.join(ids)})"}


def not_on_slices(names: Iterable[str]) -> dict[str, str]:
    """A label selector that excludes slices."""
    return {"ray.io/tpu-slice-name": f"!in({','.join(names)})"} if names else {}


def _groups(units: list[list[Node]], size: int) -> list[list[Node]]:
    """Machines of `size` units each, such as slices; no node is twice in one machine."""
    if size == 1:
        return units
    distinct = list({unit[0]["NodeID"]: unit for unit in units}.values())
    return [
        [node for unit in distinct[i : i + size] for node in unit]
        for i in range(0, len(distinct) - size + 1, size)
    ]


def _labels(node: Node) -> dict[str, str]:
    labels = node.get("Labels") or {}
    return {name: value for name, value in labels.items() if name.startswith("ray.io/tpu-")}
