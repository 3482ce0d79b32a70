"""`study doctor STUDY --address HOST:PORT`: what a cluster has, and which cells it cannot place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from study.config.hardware import HardwareError, get_slice
from sweeps.doctor.check import Check
from sweeps.runner.capacity import LOCAL, census, cpu_hosts, steady
from sweeps.runner.placing import kinds
from sweeps.study import Study, StudyError, some


def cluster_checks(study: Study | None, address: str | None) -> Iterator[Check]:
    """Of the cluster at `address`, and of the cells of `study` on it."""
    wanted: dict[str, str] = {}
    if study is not None:
        try:
            wanted = kinds(study)
        except StudyError as error:
            yield Check(verdict="fail", name="machines", text=str(error))
            return
    if address is None:
        for kind, ids in _by_kind(wanted).items():
            if kind != LOCAL:
                text = f"{len(ids)} cells want a {kind}; give --address of a cluster that has one"
                yield Check(verdict="warn", name="machines", text=text)
        return
    from sweeps.ray_cluster.local import check_address, cluster, quiet, temporary

    try:
        check_address(address)
        with (
            temporary() as temp,
            quiet(temp / "driver.log"),
            cluster(parallel=1, address=address, temp=temp) as up,
        ):
            machines = up.machines()
    except StudyError as error:
        yield Check(verdict="fail", name="cluster", text=str(error))
        return
    yield from placements(wanted, *machines)


def placements(
    wanted: Mapping[str, str],
    nodes: list[Any],
    available: Mapping[str, Any],
    draining: Iterable[str],
) -> Iterator[Check]:
    """What the machines are, and which cells find none.

    Arguments:
      wanted: kinds of machine by cell id.
      nodes, available, draining: from `Cluster.machines`.
    """
    going = set(draining)
    alive = [node for node in nodes if node["Alive"]]
    cpus = sum(node["Resources"].get("CPU", 0) for node in alive)
    yield Check(
        verdict="ok", name="cluster", text=f"{len(alive)} nodes, {cpus:.0f} cores{_goes(going)}"
    )
    if not steady(alive):
        yield Check(
            verdict="warn",
            name="cluster",
            text="all nodes are slices or spot machines: what holds a cell together goes with "
            "them; add a plain CPU node",
        )
    kinds_here = {k for node in alive if (k := _kind_of(node)) is not None}
    for kind in sorted(kinds_here):
        found = census(kind, alive, available, going)
        text = f"{found.whole} whole, {found.idle} of them idle"
        yield Check(verdict="ok" if found.whole else "warn", name=kind, text=text)
    for kind, ids in sorted(_by_kind(wanted).items()):
        if kind == LOCAL or census(kind, alive, available).whole:
            continue
        yield Check(
            verdict="fail",
            name=kind,
            text=f"{_why_not(kind, kinds_here, alive)}: {len(ids)} cells will wait for one "
            f"({some(ids, 2)}); `study run` asks for it, which helps where the cluster scales by "
            "itself",
        )


def _why_not(kind: str, here: set[str], nodes: list[Any]) -> str:
    wanted = get_slice(kind)
    if wanted.chip.kind == "cpu":
        return f"of {wanted.hosts} hosts of CPUs only {len(cpu_hosts(nodes))} are up"
    hosts = Counter(
        (node.get("Labels") or {}).get("ray.io/tpu-slice-name")
        for node in nodes
        if (node.get("Labels") or {}).get("ray.io/tpu-pod-type") == wanted.pod_type
    )
    if not hosts or wanted.chip.kind != "tpu":
        return f"the cluster has none (it has {', '.join(sorted(here)) or 'no accelerators'})"
    if wanted.slices > 1:
        return f"the cluster has {len(hosts)} of the {wanted.slices} slices that a cell takes"
    return f"of {wanted.hosts_per_slice} hosts only {max(hosts.values())} are up"


def _kind_of(node: Any) -> str | None:
    """The kind of machine that a node is part of, if it is one of the table's."""
    pod = (node.get("Labels") or {}).get("ray.io/tpu-pod-type")
    gpu = next(
        (r.partition(":")[2] for r in node["Resources"] if r.startswith("accelerator_type:")), ""
    )
    try:
        return get_slice(pod or f"gpu:{gpu.lower()}").name
    except HardwareError:
        return None


def _by_kind(wanted: Mapping[str, str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for cell_id, kind in wanted.items():
        found[kind].append(cell_id)
    return found


def _goes(draining: set[str]) -> str:
    return f", {len(draining)} of them about to go" if draining else ""
