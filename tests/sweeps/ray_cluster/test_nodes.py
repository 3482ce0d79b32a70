"""Which nodes make up a machine, and how many workers start on them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import SimpleNamespace

import pytest

from study.config.hardware import get_slice
from sweeps.cli.run import _worker_counts
from sweeps.doctor.ray import check_placement
from sweeps.ray_cluster.nodes import Nodes, bundles, demand
from sweeps.runner import actors, cell_status, launch
from sweeps.runner.actors import LocalWorker, SliceWorker
from sweeps.runner.lease import UNKNOWN, acquire
from sweeps.runner.machines import machines
from sweeps.runner.worker import WorkResult
from sweeps.runner.worker_spec import worker_spec
from sweeps.study import Study, StudyError
from tests.sweeps.studies import study_on


def slices(name: str, count: int) -> list[dict]:
    """The nodes of slices, as `ray.nodes()` shows them, the hosts of each in reverse."""
    machine = get_slice(name)
    return [
        {
            "NodeID": f"{name}-{k}-{rank}",
            "Alive": True,
            "Resources": {"TPU": 4.0, "CPU": 8.0}
            | ({f"TPU-{machine.pod_type}-head": 1.0} if rank == 0 else {}),
            "Labels": {
                "ray.io/tpu-slice-name": f"{name}-{k}",
                "ray.io/tpu-worker-id": str(rank),
                "ray.io/tpu-pod-type": machine.pod_type,
            },
        }
        for k in range(count)
        for rank in reversed(range(machine.hosts))
    ]


def cpu_node(name: str, cores: float = 4.0, **labels: str) -> dict:
    return {"NodeID": name, "Alive": True, "Resources": {"CPU": cores}, "Labels": labels}


def count(machine: str, nodes: list[dict], available: dict | None = None, **fields) -> tuple:
    """How many complete machines there are, and how many of them are idle."""
    cluster = Nodes(alive=nodes, available=available or {}, **fields)
    return len(cluster.machines(machine)), len(cluster.machines(machine, idle=True))


def test_a_slice_counts_when_all_its_hosts_are_up_idle_and_staying():
    nodes = slices("v4-16", 2) + slices("v4-8", 1)
    assert count("v4-16", nodes) == (2, 2)
    assert count("v4-16", nodes, {nodes[1]["NodeID"]: {"CPU": 1.0}}) == (2, 1)
    assert count("v4-16", nodes, draining={nodes[0]["NodeID"]}) == (1, 1)
    assert count("v4-16", nodes[1:]) == (1, 1)
    assert count("v4-16x2", nodes) == (1, 1)
    assert count("v4-8", nodes) == (1, 1)  # not the hosts of larger slices
    assert Nodes(alive=nodes[1:]).incomplete("v4-16") == ["v4-16-0"]
    assert Nodes(alive=nodes[1:]).incomplete("v4-16x2") == ["v4-16-0"]
    assert Nodes(alive=nodes).incomplete("v4-16") == []


def test_hosts_come_in_the_order_of_their_slice_and_its_head_goes_with_them():
    ((first, second),) = Nodes(alive=slices("v4-16", 1)).machines("v4-16")
    assert [first["NodeID"], second["NodeID"]] == ["v4-16-0-0", "v4-16-0-1"]
    assert bundles("v4-16", [first, second]) == [{"TPU": 4.0, "TPU-v4-16-head": 1.0}, {"TPU": 4.0}]
    (pair,) = Nodes(alive=slices("v4-16", 2)).machines("v4-16x2")
    assert [node["NodeID"] for node in pair] == [f"v4-16-{k}-{i}" for k in (0, 1) for i in (0, 1)]


def test_gpus_count_by_the_host():
    resources = {"GPU": 8.0, "accelerator_type:H100": 1.0}
    nodes = [{"NodeID": str(i), "Alive": True, "Resources": resources} for i in range(2)]
    taken = {"0": {"GPU": 3.0}}
    assert count("gpu:h100", nodes, taken) == (16, 11)
    assert count("gpu:h100x8", nodes, taken) == (2, 1)
    assert count("gpu:h100x16", nodes) == (1, 1)
    assert count("gpu:h100x16", nodes, taken) == (1, 0)
    assert count("gpu:h200", nodes) == (0, 0)
    assert bundles("gpu:h100x8", nodes[:1]) == [{"GPU": 8.0}]


def test_hosts_of_cpus_are_those_without_accelerators_and_are_taken_whole():
    nodes = [cpu_node(str(i)) for i in range(4)]
    gpu = {"NodeID": "g", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}
    others = [*slices("v4-16", 1), gpu, cpu_node("head", 0.0)]
    assert count("cpux2", nodes + others) == (2, 2)
    assert count("cpux2", nodes, {"0": {"CPU": 3.0}}) == (2, 1)
    assert count("cpux5", nodes + others) == (0, 0)
    assert bundles("cpux2", nodes[:2]) == [{"CPU": 4.0}] * 2
    assert Nodes(alive=nodes + others, available={"0": {"CPU": 3.0}}).cores() == 15


def test_what_supervises_slices_stays_on_nodes_that_stay():
    spot = cpu_node("spot", **{"ray.io/market-type": "spot"})
    nodes = [cpu_node("a"), spot, cpu_node("leaving"), *slices("v4-8", 1)]
    assert Nodes(alive=nodes, draining={"leaving"}).stable() == ["a"]


def test_an_autoscaler_is_asked_for_whole_slices():
    assert demand("v5e-16x2") == [{"TPU-v5litepod-16-head": 1.0}] * 2
    assert demand("gpu:h100x8") == [{"GPU": 8.0, "accelerator_type:H100": 0.001}]
    assert demand("cpux2") == [{"CPU": 1.0}] * 2


def test_hosts_start_again_while_the_lease_of_the_lost_ones_becomes_stale(tmp_path):
    of = study_on("v4-16")
    (cell,) = of.cells
    spec = worker_spec(of, of.folder(tmp_path), "v4-16", name="ours")
    supervisor = SliceWorker(spec, None, False, {})
    assert supervisor._next() == "claim"
    other = dataclasses.replace(UNKNOWN, worker="other")
    version = acquire(supervisor.state.store, cell.id, other, None)
    assert supervisor._next() == "wait"
    ours = dataclasses.replace(UNKNOWN, worker="ours")
    version = acquire(supervisor.state.store, cell.id, ours, version)
    assert supervisor._next() == "claim"
    assert supervisor.state.heartbeats.ages()[cell.id][0] == version.token


def test_a_local_worker_saves_when_its_node_is_about_to_be_taken_away(tmp_path, monkeypatch):
    of = study_on(None)
    spec = worker_spec(of, of.folder(tmp_path), "local", entry="fake:train")

    def work(spec, *, stop):
        assert stop.wait(60)
        return WorkResult(end=stop.reason)

    monkeypatch.setattr(actors, "LOOK_S", 0.01)
    monkeypatch.setattr(actors, "work", work)
    monkeypatch.setattr(actors, "draining", lambda: {"here"})
    here = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr("ray.get_runtime_context", lambda: here)
    assert LocalWorker(spec, {}, False).run().end == "preempted"


class Started(launch.Workers):
    """Workers that are only counted."""

    def __init__(self, study: Study, counts: dict[str, int], nodes: list[dict], cores: int = 2):
        self.cluster, self.machines = SimpleNamespace(own=False), machines(study)
        self._counts, self._failed, self.cores = counts, Counter(), cores
        self.names, self._waiting, self._running = set(), set(), {}
        self.nodes, self.lines, self.study = Nodes(alive=nodes), [], study

    def _start(self, machine):
        self._running[object()] = machine, None

    def start(self, tmp_path, busy: int = 0, available: dict | None = None) -> dict[str, int]:
        """Looks once while workers of ours train `busy` cells; the workers that there are then."""
        self.names = {"ours"}
        owner = UNKNOWN.__class__(**{**vars(UNKNOWN), "worker": "ours"})
        statuses = [
            status
            if i >= busy
            else status.__class__(**{**vars(status), "state": "running", "owner": owner})
            for i, status in enumerate(cell_status.read(self.study, tmp_path))
        ]
        self.nodes = Nodes(alive=self.nodes.alive, available=available or {})
        self.top_up(statuses, self.lines.append)
        return dict(self.live)


@pytest.fixture
def started(monkeypatch):
    """`started(study, counts, nodes)`: workers on a cluster of these nodes."""

    def start(*args, **fields):
        workers = Started(*args, **fields)
        monkeypatch.setattr(launch.Nodes, "look", classmethod(lambda cls: workers.nodes))
        return workers

    return start


def test_by_default_there_are_as_many_workers_as_idle_slices_and_cells(started, tmp_path):
    workers = started(study_on(*["v4-16"] * 5), {}, slices("v4-16", 2))
    assert workers.start(tmp_path) == {"v4-16": 2}
    assert workers.start(tmp_path) == {"v4-16": 2}  # which have not claimed a cell yet
    taken = {node["NodeID"]: {} for node in workers.nodes.alive}
    assert workers.start(tmp_path, busy=2, available=taken) == {"v4-16": 2}
    workers.nodes = Nodes(alive=slices("v4-16", 4))  # two more
    assert workers.start(tmp_path, busy=2, available=taken) == {"v4-16": 4}
    few = started(study_on("v4-16"), {}, slices("v4-16", 3))
    assert few.start(tmp_path) == {"v4-16": 1}


def test_one_worker_waits_where_there_is_no_slice_and_as_many_as_asked(started, tmp_path):
    workers = started(study_on(*["v4-16"] * 5), {}, slices("v4-16", 1)[1:])
    assert workers.start(tmp_path) == workers.start(tmp_path) == {"v4-16": 1}
    (line,) = workers.lines
    assert line.startswith("the cluster has no complete v4-16: 5 cells wait for one")
    assert started(study_on(*["v4-16"] * 5), {"v4-16": 3}, []).start(tmp_path) == {"v4-16": 3}
    assert started(study_on("v4-16", "v4-8"), {"v4-16": 3}, []).start(tmp_path) == {
        "v4-16": 1,
        "v4-8": 1,
    }


def test_a_worker_that_failed_is_not_replaced(started, tmp_path):
    workers = started(study_on(*["v4-16"] * 5), {}, slices("v4-16", 1))
    assert workers.start(tmp_path) == {"v4-16": 1}
    workers._running.clear()
    workers._failed["v4-16"] += 1
    assert workers.start(tmp_path) == {}


def test_local_workers_fill_the_cores(started, tmp_path):
    assert started(study_on(None, None, None), {}, [], cores=2).start(tmp_path) == {"local": 2}
    assert started(study_on(None, None), {}, [], cores=8).start(tmp_path) == {"local": 2}
    wide = started(study_on(None, None, cores=2), {}, [], cores=2)
    assert wide.start(tmp_path) == {"local-2": 1}
    assert started(study_on(None, None), {"local": 1}, [], cores=8).start(tmp_path) == {"local": 1}


def test_a_cluster_of_our_own_is_as_large_as_its_workers(monkeypatch):
    monkeypatch.setattr(launch, "cores", lambda: 4)
    monkeypatch.setattr(launch, "local_workers", lambda cores: cores)
    assert launch.own_cores({}, ["local", "local-2"]) == 4
    assert launch.own_cores({"local": 2}, ["local"]) == 2
    assert launch.own_cores({"local": 6}, ["local"]) == 6
    assert launch.own_cores({"local-2": 1}, ["local", "local-2"]) == 4
    with pytest.raises(StudyError, match=r"ask for 8 cores, and this machine has 4"):
        launch.own_cores({}, ["local-8"])
    with pytest.raises(StudyError, match=r"ask for v4-16, and this machine has none.*--address"):
        launch.own_cores({}, ["local", "v4-16"])


def test_workers_are_counted_by_type_or_for_each_type():
    both = study_on(None, "v5e-16")
    assert _worker_counts(both, ["v5litepod-16=2", "local=3"]) == {"v5e-16": 2, "local": 3}
    assert _worker_counts(both, ["3"]) == {"v5e-16": 3, "local": 3}
    for text in ("v4-32", "v4-32=0", "v4-33=1", "=2"):
        with pytest.raises(StudyError, match=f"--workers {text}"):
            _worker_counts(both, [text])


def test_machines_that_ray_cannot_reserve_are_refused_before_anything_starts():
    assert set(machines(study_on(None, "cpu", "v4-32")).values()) == {"local", "v4-32"}
    with pytest.raises(StudyError, match="one-host slices"):
        machines(study_on("v4-8x2"))


def test_a_doctor_says_which_cells_find_no_slice_and_why():
    wanted = {"a": "v4-16", "b": "v4-8", "c": "v4-16x2", "d": "v6e-16", "e": "local", "f": "cpux2"}
    nodes = slices("v4-16", 1) + slices("v4-8", 1)

    def failures(nodes: list[dict]) -> dict[str, str]:
        checks = check_placement(wanted, Nodes(alive=nodes))
        return {check.name: check.text for check in checks if check.verdict == "fail"}

    texts = failures(nodes)
    assert sorted(texts) == ["cpux2", "v4-16x2", "v6e-16"]
    assert "only 0 of 2 CPU hosts" in texts["cpux2"]
    assert "1 cells will wait for one (d)" in texts["v6e-16"]
    assert "1 of the 2 slices" in texts["v4-16x2"]
    assert "it has v4-16, v4-8" in texts["v6e-16"]
    assert "only 1 of 2 hosts" in failures(nodes[1:])["v4-16"]
