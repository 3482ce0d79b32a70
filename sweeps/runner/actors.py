"""What `study run` starts on a Ray cluster: a worker on local cores, or one that has slices.

A slice is held by a placement group on its nodes, and an actor on each host is one process of the
worker. A supervisor waits for a slice, starts the hosts, and starts them again after a loss, on
another slice if need be. It runs on a node that nobody takes away, and holds no slice while other
workers hold all cells that are left.

Ray Train's `JaxTrainer` can do this too, but on Ray 2.60 it takes 12 s to start where this takes 4,
runs six more processes for each slice, notices a lost host up to 18 s later, and chooses a slice
that has lost a host again, for as long as its head is up.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.config.hardware import get_slice
from study.records.provenance import code_version, library_versions
from study.records.record import RecordError
from study.records.redact import redact
from study.records.storage import format_error, resolve
from study.records.wandb_mirror import wandb_mode, why_offline
from sweeps.ray_cluster.nodes import Node, Nodes, bundles, demand, draining, not_on_slices
from sweeps.runner.cell_status import StudyState
from sweeps.runner.lease import monotonic
from sweeps.runner.marks import stop_requested
from sweeps.runner.repeating import repeating
from sweeps.runner.signals import StopFlag
from sweeps.runner.worker import WorkResult, work
from sweeps.runner.worker_spec import WorkerSpec, missing_data

LOOK_S = 2.0  # seconds between two looks at the cluster
START_S = 120.0  # seconds for the actors of all hosts to start on their nodes, and then to join
_RESERVE_S = 5.0  # seconds for a placement group on nodes that were idle
_LAST_WORDS_S = 5.0  # seconds in which process 0 records that another host was lost
_SOON_S = 30.0  # hosts that end with an error after less than this wait before the next start
_MAX_BACKOFF_S = 60.0
_LOCK = "libtpu_lockfile"
_LINES = "study/"  # begins the keys of lines for the driver, in Ray's key-value store


def versions() -> dict[str, str]:
    """Versions of everything on this host that can change a number, or keep hosts apart."""
    import ray

    return {"batch-size-study": code_version(), **library_versions(), "ray": ray.__version__}


class LocalWorker:
    """An actor that trains cells on the cores, or the GPU, that it was given.

    Arguments:
      expected: the driver's `versions`; None on the driver's machine.
      detached: whether it starts by itself and ends by itself, with nobody to take its result.
    """

    def __init__(self, spec: WorkerSpec, expected: Mapping[str, str] | None, detached: bool):
        self.spec, self.expected = spec, expected
        if detached:
            threading.Thread(target=self._run_detached, daemon=True).start()

    def run(self) -> WorkResult:
        import ray

        if problem := _check_host(self.spec, self.expected):
            return WorkResult(end="failed", error=problem)
        if self.expected is None:  # this machine stays
            return work(self.spec)
        flag, node_id = StopFlag(), ray.get_runtime_context().get_node_id()

        def look() -> None:
            if node_id in draining():
                flag.set("preempted")

        with repeating(look, every_s=LOOK_S, name="drain"):
            return work(self.spec, stop=flag)

    def _run_detached(self) -> None:
        import ray

        try:
            result: Any = self.run()
        except Exception as error:  # into the actor's log, its only reader
            result = error
        print(result, flush=True)
        # Ray starts one whose node goes on another node.
        goes_on = isinstance(result, WorkResult) and result.end == "preempted"
        ray.kill(ray.get_runtime_context().current_actor, no_restart=not goes_on)


class HostWorker:
    """An actor on one host of a slice: one process of a worker. `stop` runs beside `run`."""

    def __init__(self, spec: WorkerSpec, expected: Mapping[str, str] | None):
        self.spec, self.expected = spec, expected
        self.flag = StopFlag()

    def address(self) -> tuple[str, str | None]:
        """An address of this host with a free port, and why it cannot be used."""
        import ray

        # A libtpu that was killed leaves its lock behind.
        _unlock(Path(tempfile.gettempdir()) / _LOCK)
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        problem = _check_host(self.spec, self.expected)
        return f"{ray.util.get_node_ip_address()}:{port}", problem

    def run(
        self,
        coordinator: str,
        count: int,
        index: int,
        environment: Mapping[str, str],
        ages: Mapping[str, tuple[str, float]],
    ) -> WorkResult:
        """Trains as process `index` of `count`.

        Arguments:
          environment: set before JAX starts.
          ages: of the leases that the supervisor has watched, so that nobody waits for them twice.
        """
        now = monotonic()
        seen = {cell: (token, now - age) for cell, (token, age) in ages.items()}
        os.environ.update(environment)
        # Else JAX goes on with the CPU where an accelerator does not start.
        platforms = {"tpu": "tpu", "gpu": "cuda", "cpu": "cpu"}
        os.environ.setdefault("JAX_PLATFORMS", platforms[get_slice(self.spec.machine).chip.kind])
        # Orbax prints forty lines a checkpoint.
        logging.getLogger("absl").setLevel(logging.WARNING)
        if count > 1:
            from study.training.multihost import join

            join(coordinator, count, index, seconds=START_S)
        return work(self.spec, stop=self.flag, seen=seen)

    def stop(self) -> None:
        self.flag.set("preempted")


class SliceWorker(LocalWorker):
    """An actor that trains cells on one slice at a time: the supervisor of its hosts.

    Arguments:
      environment: of the processes on the hosts.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        expected: Mapping[str, str] | None,
        detached: bool,
        environment: Mapping[str, str],
    ):
        self.environment = dict(environment)
        cells = [task.cell for task in spec.tasks]
        self.state = StudyState(cells, resolve(spec.folder), for_claims=True)
        self._demand: tuple[Any, list[str]] | None = None
        super().__init__(spec, expected, detached)

    def run(self) -> WorkResult:
        """Has hosts train cells until none is left, or the run is stopped."""
        failures = 0
        self._release_old()
        while (action := self._next()) in ("claim", "wait"):
            reserved = self._reserve() if action == "claim" else None
            if reserved is None:
                time.sleep(max(LOOK_S, self.state.store.poll_s) + random.random())
                continue
            began = time.monotonic()
            result = self._train(*reserved)
            if result.end in ("failed", "no space"):
                return result
            soon = time.monotonic() - began < _SOON_S
            failures = failures + 1 if result.error is not None and soon else 0
            if failures > 1:
                say(self.spec, f"{self.spec.machine}: {result.error}; starting it again")
                time.sleep(min(_MAX_BACKOFF_S, 2.0**failures))
        self._want(None)
        return WorkResult(end="stopped" if action == "stopped" else "finished")

    def _next(self) -> str:
        """ "finished", "stopped", "claim" if a cell can be claimed, else "wait"."""
        try:
            if stop_requested(self.state.store, self.spec.run_id):
                return "stopped"
            statuses = self.state.refresh()
        except (OSError, RecordError):  # the workers on the hosts say so if it lasts
            return "wait"
        if not any(status.runnable for status in statuses):
            return "finished"
        soon = time.time() + LOOK_S
        # Our hosts have ended. New ones start while the lease of those becomes stale.
        free = [
            s
            for s in statuses
            if (s.owner is None or s.owner.worker == self.spec.name)
            and s.runnable
            and s.wait_until < soon
        ]
        return "claim" if free else "wait"

    def _reserve(self) -> tuple[Any, list[Node]] | None:
        """The placement group that holds an idle machine, and its nodes; None if there is none."""
        from ray.util import placement_group

        cluster = Nodes.look()
        machines = cluster.machines(self.spec.machine, idle=True)
        self._want(None if machines else cluster)
        if not machines:
            return None
        nodes = random.choice(machines)
        group = placement_group(
            bundles(self.spec.machine, nodes),
            name=self.spec.name,
            bundle_label_selector=[{"ray.io/node-id": node["NodeID"]} for node in nodes],
        )
        if group.wait(_RESERVE_S):
            return group, nodes
        _remove(group)  # another worker was faster
        return None

    def _want(self, cluster: Nodes | None) -> None:
        """Leaves a placement group pending that asks an autoscaler for a machine; None for none.

        The head of a slice that has lost another host could satisfy it, so that is excluded.
        """
        from ray.util import placement_group, placement_group_table

        excluded = [] if cluster is None else cluster.incomplete(self.spec.machine)
        if self._demand is not None:
            group, excluded_before = self._demand
            pending = placement_group_table(group)["state"] == "PENDING"
            if cluster is not None and pending and excluded == excluded_before:
                return
            _remove(group)
            self._demand = None
        if cluster is not None:
            group = placement_group(
                (asked := demand(self.spec.machine)),
                strategy="SPREAD",
                name=f"{self.spec.name} waits",
                bundle_label_selector=[not_on_slices(excluded)] * len(asked),
            )
            self._demand = group, excluded

    def _release_old(self) -> None:
        """Ray keeps the placement groups of an actor that it starts again."""
        from ray.util import get_placement_group

        for name in (self.spec.name, f"{self.spec.name} waits"):
            with contextlib.suppress(ValueError):
                _remove(get_placement_group(name))

    def _train(self, group: Any, nodes: list[Node]) -> WorkResult:
        """Runs a process on every host until they end, or one is lost."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        ids = {node["NodeID"] for node in nodes}
        hosts: list[Any] = []
        try:
            for index, bundle in enumerate(map(dict, group.bundle_specs)):
                actor = ray.remote(HostWorker).options(
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
                    num_cpus=bundle.pop("CPU", 0),
                    num_gpus=bundle.pop("GPU", 0),
                    resources=bundle,
                    max_concurrency=2,
                    runtime_env={"env_vars": self.environment},
                )
                hosts.append(actor.remote(self.spec, self.expected))
            started = ray.get([host.address.remote() for host in hosts], timeout=START_S)
            if problem := next((p for _, p in started if p), None):
                return WorkResult(end="failed", error=problem)
            coordinator, ages = started[0][0], self.state.heartbeats.ages()
            running = [
                host.run.remote(
                    coordinator, len(hosts), k, self._slice_environment(coordinator, k), ages
                )
                for k, host in enumerate(hosts)
            ]
            noticed = False
            while not (ready := ray.wait(running, timeout=LOOK_S)[0]):
                if not noticed and ids & draining():
                    noticed = True
                    for host in hosts:
                        host.stop.remote()
            # One that fails ends all. Process 0 records why, if it can.
            ray.wait(running[:1], timeout=_LAST_WORDS_S)
            return ray.get(ready[0])
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            line = redact(format_error(cause, max_chars=200))
            return WorkResult(end="preempted", error=line)
        finally:
            for host in hosts:
                ray.kill(host)
            _remove(group)

    def _slice_environment(self, coordinator: str, index: int) -> dict[str, str]:
        """What tells host `index` of several TPU slices about the others."""
        machine = get_slice(self.spec.machine)
        if machine.slices == 1 or machine.chip.kind != "tpu":
            return {}
        from ray.util.tpu import get_tpu_coordinator_env_vars

        return get_tpu_coordinator_env_vars(
            coordinator.rpartition(":")[0], machine.slices, index // machine.hosts_per_slice
        )


def say(spec: WorkerSpec, text: str, *, about: str | None = None) -> None:
    """A line for the driver, which shows those with the same `about` once."""
    from ray.experimental import internal_kv

    print(text, flush=True)
    digest = hashlib.sha256((about or text).encode()).hexdigest()[:16]
    key = f"{_LINES}{spec.run_id}/{digest}"
    internal_kv._internal_kv_put(key.encode(), text.encode(), overwrite=False)


def take_lines(run_id: str, shown: set[bytes]) -> list[str]:
    """The lines of the workers of a run that are not in `shown` yet, which they are then."""
    from ray.experimental import internal_kv

    keys = set(internal_kv._internal_kv_list(f"{_LINES}{run_id}/".encode())) - shown
    shown |= keys
    return [(internal_kv._internal_kv_get(key) or b"").decode() for key in sorted(keys)]


def _check_host(spec: WorkerSpec, expected: Mapping[str, str] | None) -> str | None:
    """Why this host must not train, in one line. Also says why it cannot mirror to wandb."""
    host = socket.gethostname()
    if expected is not None:
        try:
            here = versions()
        except Exception as error:
            return f"{host}: {format_error(error, max_chars=200)}"
        different = [
            f"{name} {here.get(name, 'missing')} instead of {version}"
            for name, version in expected.items()
            if here.get(name) != version
        ]
        if different:
            return f"{host} has {', '.join(different)}; install the driver's versions there"
    if problem := missing_data(spec):
        return problem
    mirrors = any(task.execution.wandb for task in spec.tasks)
    if mirrors and wandb_mode() in ("online", "shared") and (reason := why_offline()):
        say(spec, f"wandb on {host}: {reason}; runs are mirrored offline", about=reason)
    return None


def _remove(group: Any) -> None:
    from ray.util import remove_placement_group

    with contextlib.suppress(Exception):  # it went with its nodes
        remove_placement_group(group)


def _unlock(path: Path) -> None:
    """Removes the lock file of a libtpu that was killed; one that a live process holds stays."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return
