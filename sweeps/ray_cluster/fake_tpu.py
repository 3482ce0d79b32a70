"""Fake TPU slices: a Ray cluster on this machine whose nodes call themselves hosts.

    study cluster fake --slice v4-16 --slice v4-8

Every node has the resources and labels that a host of such a slice has, and JAX finds CPU devices
on it, as many as the host has chips. So all that places cells on slices, gathers their hosts, and
starts again when one is lost, runs as it would on TPUs, and hosts can be taken away at will.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.config.hardware import Slice, get_slice
from sweeps.ray_cluster.connect import STORE
from sweeps.ray_cluster.env import NICENESS
from sweeps.study import StudyError


@dataclass(kw_only=True)
class FakeSlice:
    """One whole slice: its name in the cluster, and a Ray node for each of its hosts."""

    name: str
    kind: Slice
    hosts: list[Any] = field(default_factory=list)


class FakeSlices:
    """The cluster. To be used from the main thread, as Ray asks of whoever starts its processes.

    Attributes:
      address: "host:port", to join it.
      slices: those that are whole, by name.
    """

    def __init__(self, temp: Path):
        logging.getLogger("ray").setLevel(logging.ERROR)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no network
        from ray.cluster_utils import Cluster

        self.slices: dict[str, FakeSlice] = {}
        self._count = 0
        self._cluster = Cluster()
        with _current_cluster_kept():
            self._cluster.add_node(
                num_cpus=2,
                env_vars=_environment(devices=1),
                object_store_memory=STORE,
                temp_dir=str(temp),
                node_ip_address="127.0.0.1",
                include_dashboard=False,
            )

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, kind: str) -> FakeSlice:
        """Starts all hosts of one more slice of `kind`."""
        wanted = get_slice(kind)
        if wanted.chip.kind == "gpu" or wanted.slices != 1:
            raise StudyError(
                f"--slice {kind}: give one TPU slice, such as v4-16, or cpu, once for each"
            )
        made = FakeSlice(name=f"{wanted.pod}-{self._count}", kind=wanted)
        self._count += 1
        self.slices[made.name] = made
        for rank in range(wanted.hosts):
            made.hosts.append(self._cluster.add_node(**_host(made.name, wanted, rank)))
        return made

    def lose(self, name: str) -> None:
        """Kills all hosts of a slice without a word, as when machines lose power."""
        for node in self.slices.pop(name).hosts:
            with contextlib.suppress(AssertionError):  # its workers die a moment later
                self._cluster.remove_node(node, allow_graceful=False)

    def replace(self) -> Iterator[tuple[str, str]]:
        """Puts a new slice in the place of each that has lost a host, as whoever rents them out
        does; yields the names of both."""
        for name, old in list(self.slices.items()):
            incomplete = len(old.hosts) < old.kind.hosts
            if incomplete or any(host.dead_processes() for host in old.hosts):
                self.lose(name)
                try:
                    new = self.add(old.kind.pod)
                except Exception:  # Ray gives a node 30 s to start; the next call replaces this one
                    continue
                yield name, new.name

    def close(self) -> None:
        for node in [*self._cluster.worker_nodes, self._cluster.head_node]:
            with contextlib.suppress(Exception):
                self._cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def fake_slices(kinds: Sequence[str], temp: Path) -> Iterator[FakeSlices]:
    """A cluster with a slice of each of `kinds`, and gone with the block.

    Raises:
      HardwareError: there is no such slice.
      StudyError: it is neither a TPU slice nor a host of CPUs.
    """
    for kind in kinds:
        get_slice(kind)
    up = FakeSlices(temp)
    try:
        for kind in kinds:
            up.add(kind)
        yield up
    finally:
        up.close()


@contextlib.contextmanager
def _current_cluster_kept() -> Iterator[None]:
    """Ray notes the last cluster that was started, for whoever names none; that is not ours."""
    import ray._common.utils as ray_utils

    note = Path(ray_utils.get_ray_address_file(None))
    note.parent.mkdir(parents=True, exist_ok=True)
    before = note.read_bytes() if note.exists() else None
    try:
        yield
    finally:
        if before is None:
            note.unlink(missing_ok=True)
        else:
            note.write_bytes(before)


def _host(name: str, kind: Slice, rank: int) -> dict[str, Any]:
    """What Ray is to know of one host, as it finds it on a real one."""
    chips = kind.chips_per_host
    environment = _environment(devices=chips * kind.chip.devices)
    found = {
        "num_cpus": 1,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": STORE,
    }
    if kind.chip.kind == "cpu":
        return found | {"env_vars": environment}
    resources = {"TPU": chips, name: 1, f"accelerator_type:{kind.accelerator_type}": 1}
    if rank == 0:
        resources[f"TPU-{kind.pod_type}-head"] = 1
    return found | {
        "resources": resources,
        "labels": {
            "ray.io/tpu-slice-name": name,
            "ray.io/tpu-worker-id": str(rank),
            "ray.io/tpu-topology": kind.topology,
            "ray.io/tpu-pod-type": kind.pod_type,
        },
        "env_vars": environment
        | {
            "TPU_NAME": name,
            "TPU_WORKER_ID": str(rank),
            "TPU_ACCELERATOR_TYPE": kind.pod_type,
            "TPU_TOPOLOGY": kind.topology,
        },
    }


def _environment(*, devices: int) -> dict[str, str]:
    """What JAX is to find on a host."""
    return {
        **NICENESS,
        "NPROC": str(devices + 1),  # see `sweeps.ray_cluster.env.environment`
        "JAX_PLATFORMS": "cpu",
        # After the flags of this process: XLA takes the last value of each.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false "
        f"--xla_force_host_platform_device_count={devices}".strip(),
        "OMP_NUM_THREADS": "1",
    }
