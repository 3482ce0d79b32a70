"""Checks a Ray cluster: which machines it has, and which cells of a study find none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from study.config.hardware import HardwareError, get_slice
from sweeps.doctor.machine import Check
from sweeps.runner.capacity import LOCAL, census, cpu_hosts, steady
from sweeps.runner.placing import kinds
from sweeps.study import Study, StudyError, abbreviate


def check_cluster(study: Study | None, address: str | None) -> Iterator[Check]:
    """Checks the cluster at `address`, and whether every cell of `study` finds a machine."""
    machines: dict[str, str] = {}
    try:
        if study is not None:
            machines = kinds(study)
    except StudyError as error:
        yield Check("fail", "machines", str(error))
        return
    if address is None:
        for kind, ids in _ids_by_kind(machines).items():
            text = f"{len(ids)} cells need a {kind}; give --address of a cluster that has one"
            yield Check("warn", "machines", text)
        return
    from sweeps.ray_cluster.local import check_address, cluster, quiet, temporary

    try:
        check_address(address)
        with (
            temporary() as temp,
            quiet(temp / "driver.log"),
            cluster(parallel=1, address=address, temp=temp) as up,
        ):
            state = up.machines()
    except StudyError as error:
        yield Check("fail", "cluster", str(error))
        return
    yield from check_placement(machines, *state)


def check_placement(
    machines: Mapping[str, str],
    nodes: list[Any],
    available: Mapping[str, Any],
    draining: Iterable[str],
) -> Iterator[Check]:
    """Counts the machines of a cluster and finds the cells that none of them can run.

    Arguments:
      machines: the kind of machine that each cell needs, by cell id.
      nodes, available, draining: from `Cluster.machines`.
    """
    leaving = set(draining)
    alive = [node for node in nodes if node["Alive"]]
    cpus = sum(node["Resources"].get("CPU", 0) for node in alive)
    note = f", {len(leaving)} nodes are draining" if leaving else ""
    yield Check("ok", "cluster", f"{len(alive)} nodes, {cpus:.0f} cores{note}")
    if not steady(alive):
        yield Check(
            "warn",
            "cluster",
            "all nodes are slices or spot machines, so the process that coordinates a cell can be "
            "preempted with them; add a plain CPU node",
        )
    kinds_here = {kind for node in alive if (kind := _kind_of(node)) is not None}
    for kind in sorted(kinds_here):
        count = census(kind, alive, available, leaving)
        text = f"{count.whole} complete, {count.idle} of them idle"
        yield Check("ok" if count.whole else "warn", kind, text)
    for kind, ids in sorted(_ids_by_kind(machines).items()):
        if not census(kind, alive, available).whole:
            yield Check(
                "fail",
                kind,
                f"{_why_missing(kind, kinds_here, alive)}: {len(ids)} cells will wait for one "
                f"({abbreviate(ids, 2)}); `study run` requests it, which helps if the cluster has "
                "an autoscaler",
            )


def _why_missing(kind: str, kinds_here: set[str], nodes: list[Any]) -> str:
    machine = get_slice(kind)
    if machine.chip.kind == "cpu":
        return f"only {len(cpu_hosts(nodes))} of {machine.hosts} CPU hosts are up"
    hosts = Counter(
        (node.get("Labels") or {}).get("ray.io/tpu-slice-name")
        for node in nodes
        if (node.get("Labels") or {}).get("ray.io/tpu-pod-type") == machine.pod_type
    )
    if not hosts or machine.chip.kind != "tpu":
        return f"the cluster has none (it has {', '.join(sorted(kinds_here)) or 'no accelerators'})"
    if machine.slices > 1:
        return f"the cluster has {len(hosts)} of the {machine.slices} slices that a cell needs"
    return f"only {max(hosts.values())} of {machine.hosts_per_slice} hosts are up"


def _kind_of(node: Any) -> str | None:
    """The kind of machine that a node belongs to, if `study.config.hardware` knows it."""
    pod = (node.get("Labels") or {}).get("ray.io/tpu-pod-type")
    prefix = "accelerator_type:"
    gpu = next((r.removeprefix(prefix) for r in node["Resources"] if r.startswith(prefix)), "")
    try:
        return get_slice(pod or f"gpu:{gpu.lower()}").name
    except HardwareError:
        return None


def _ids_by_kind(machines: Mapping[str, str]) -> dict[str, list[str]]:
    """Cell ids by the kind of machine they need; those that run on local cores left out."""
    ids = defaultdict(list)
    for cell_id, kind in machines.items():
        if kind != LOCAL:
            ids[kind].append(cell_id)
    return ids
