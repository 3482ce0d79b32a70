"""Checks a Ray cluster: which machines it has, and which cells of a study find none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from study.config.hardware import HardwareError, get_slice
from sweeps.doctor.machine import Check
from sweeps.ray_cluster.connect import find_address, join
from sweeps.ray_cluster.nodes import Node, Nodes, cpu_hosts
from sweeps.ray_cluster.temporary import quiet, temporary
from sweeps.runner.machines import is_local, machines
from sweeps.study import Study, StudyError, abbreviate


def check_cluster(study: Study | None, address: str | None) -> Iterator[Check]:
    """Checks the cluster at `address`, and whether every cell of `study` finds a machine."""
    machine_by_id: dict[str, str] = {}
    try:
        if study is not None:
            machine_by_id = machines(study)
    except StudyError as error:
        yield Check("fail", "machines", str(error))
        return
    try:
        address = find_address(address)
        if address is None:
            for machine, ids in _ids_by_machine(machine_by_id).items():
                text = (
                    f"{len(ids)} cells need a {machine}; give --address of a cluster that has one"
                )
                yield Check("warn", "machines", text)
            return
        with temporary() as temp, quiet(temp / "log"), join(address):
            nodes = Nodes.look()
    except StudyError as error:
        yield Check("fail", "cluster", str(error))
        return
    yield from check_placement(machine_by_id, nodes)


def check_placement(machine_by_id: Mapping[str, str], nodes: Nodes) -> Iterator[Check]:
    """Counts the machines of a cluster and finds the cells that none of them can run.

    Arguments:
      machine_by_id: the type of machine that each cell needs, by cell id.
    """
    cpus = sum(node["Resources"].get("CPU", 0) for node in nodes.alive)
    note = f", {len(nodes.draining)} nodes are draining" if nodes.draining else ""
    yield Check("ok", "cluster", f"{len(nodes.alive)} nodes, {cpus:.0f} cores{note}")
    if not nodes.stable():
        yield Check(
            "warn",
            "cluster",
            "all nodes are slices or spot machines, so what supervises a slice can be preempted "
            "with it; add a plain CPU node",
        )
    types = {name for node in nodes.alive if (name := _type_of(node)) is not None}
    for machine in sorted(types):
        complete, idle = nodes.machines(machine), nodes.machines(machine, idle=True)
        text = f"{len(complete)} complete, {len(idle)} of them idle"
        yield Check("ok" if complete else "warn", machine, text)
    for machine, ids in sorted(_ids_by_machine(machine_by_id).items()):
        if not nodes.machines(machine):
            yield Check(
                "fail",
                machine,
                f"{_why_missing(machine, types, nodes.alive)}: {len(ids)} cells will wait for one "
                f"({abbreviate(ids, 2)}); `study run` requests it, which helps if the cluster has "
                "an autoscaler",
            )


def _why_missing(name: str, types: set[str], nodes: list[Node]) -> str:
    machine = get_slice(name)
    if machine.chip.kind == "cpu":
        return f"only {len(cpu_hosts(nodes))} of {machine.hosts} CPU hosts are up"
    hosts = Counter(
        (node.get("Labels") or {}).get("ray.io/tpu-slice-name")
        for node in nodes
        if (node.get("Labels") or {}).get("ray.io/tpu-pod-type") == machine.pod_type
    )
    if not hosts or machine.chip.kind != "tpu":
        return f"the cluster has none (it has {', '.join(sorted(types)) or 'no accelerators'})"
    if machine.slices > 1:
        return f"the cluster has {len(hosts)} of the {machine.slices} slices that a cell needs"
    return f"only {max(hosts.values())} of {machine.hosts_per_slice} hosts are up"


def _type_of(node: Node) -> str | None:
    """The type of machine that a node belongs to, if `study.config.hardware` knows it."""
    pod = (node.get("Labels") or {}).get("ray.io/tpu-pod-type")
    prefix = "accelerator_type:"
    gpu = next((r.removeprefix(prefix) for r in node["Resources"] if r.startswith(prefix)), "")
    try:
        return get_slice(pod or f"gpu:{gpu.lower()}").name
    except HardwareError:
        return None


def _ids_by_machine(machine_by_id: Mapping[str, str]) -> dict[str, list[str]]:
    """Cell ids by the type of machine they need; those that run on local cores left out."""
    ids = defaultdict(list)
    for cell_id, machine in machine_by_id.items():
        if not is_local(machine):
            ids[machine].append(cell_id)
    return ids
