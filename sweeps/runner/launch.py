"""The workers of one `study run`: how many of each type, and how they are doing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.config.host import cores
from study.records.redact import redact
from study.records.storage import format_error
from sweeps.ray_cluster.connect import NAMESPACE, Cluster
from sweeps.ray_cluster.env import NICENESS, environment, gang_environment, local_workers
from sweeps.ray_cluster.nodes import Nodes, on_nodes
from sweeps.runner.actors import LocalWorker, SliceWorker, take_lines, versions
from sweeps.runner.cell_status import CellStatus
from sweeps.runner.machines import cores_of, is_local, machines
from sweeps.runner.store import open_store
from sweeps.runner.worker import WorkResult
from sweeps.runner.worker_spec import worker_spec
from sweeps.study import Study, StudyError

# A slice is kept while others hold all cells that are left, until the leases of dead workers are
# stale for its hosts, which count from their own start, and this much longer.
_IDLE_S = 60.0


def own_cores(counts: Mapping[str, int], wanted: Sequence[str]) -> int:
    """The cores of a cluster of our own, for machines of the types `wanted`.

    Raises:
      StudyError: cells ask for more than this machine has, or for a slice.
    """
    if slices := [machine for machine in wanted if not is_local(machine)]:
        raise StudyError(
            f"cells ask for {', '.join(slices)}, and this machine has none: join a cluster with "
            "--address HOST:PORT or auto (`study cluster fake` starts one to try it), or run here "
            "with --set execution.slice=null"
        )
    for machine in wanted:
        if cores_of(machine) > cores():
            raise StudyError(
                f"cells ask for {cores_of(machine)} cores, and this machine has {cores()}: "
                f"--set execution.cores={cores()}"
            )
    default = local_workers(cores())
    return max(
        counts[machine] * cores_of(machine)
        if machine in counts
        else max(default, cores_of(machine))
        for machine in wanted
    )


class Workers:
    """Starts workers and takes their results.

    Arguments:
      counts: workers by type of machine; by default cores, or the machines that are idle.
      first: ids of cells that start before the others.
      fields: others of `WorkerSpec`.
    """

    def __init__(
        self,
        cluster: Cluster,
        study: Study,
        folder: Path,
        *,
        run_id: str,
        counts: Mapping[str, int],
        first: Sequence[str] = (),
        detached: bool = False,
        **fields: Any,
    ):
        self.cluster, self.detached, self.run_id = cluster, detached, run_id
        self.machines = machines(study)
        self.failure: WorkResult | None = None  # the last one
        self._counts = counts
        idle_s = open_store(folder).stale_s + _IDLE_S
        self._specs = {
            machine: worker_spec(
                study,
                folder,
                machine,
                first=first,
                run_id=run_id,
                **({} if is_local(machine) else {"max_idle_s": idle_s}),
                **fields,
            )
            for machine in sorted(set(self.machines.values()))
        }
        self._expected = None if cluster.own else versions()
        self._running: dict[Any, tuple[str, Any]] = {}
        self._failed: Counter[str] = Counter()
        self.names: set[str] = set()
        self._waiting: set[str] = set()
        self._shown: set[bytes] = set()
        self._started = 0
        self._nodes = Nodes.look()
        self.cores = cluster.cpus or max(1, self._nodes.cores())

    @property
    def live(self) -> Counter[str]:
        """How many workers there are of each type of machine."""
        return Counter(machine for machine, _ in self._running.values())

    def top_up(self, statuses: Sequence[CellStatus], report: Callable[[str], None]) -> None:
        """Starts workers for the cells that nobody trains, as many as there may be."""
        claimable, busy = Counter[str](), Counter[str]()
        for status in statuses:
            machine = self.machines[status.cell.id]
            claimable[machine] += status.runnable and status.owner is None
            busy[machine] += status.owner is not None and status.owner.worker in self.names
        if slices := [m for m in claimable if not is_local(m)]:
            self._nodes = Nodes.look()
        live = self.live
        for machine in sorted(m for m, count in claimable.items() if count):
            free = live[machine] - busy[machine]  # they wait, or are about to claim a cell
            if machine in self._counts or is_local(machine):
                room = self._counts.get(machine) or max(1, self.cores // cores_of(machine))
                new = min(room - live[machine], claimable[machine] - free)
            else:
                idle = len(self._nodes.machines(machine, idle=True))
                new = max(min(idle, claimable[machine]) - free, 0 if live[machine] else 1)
            for _ in range(new - self._failed[machine]):
                self._start(machine)
        for machine in slices:
            if not claimable[machine] or self._nodes.machines(machine):
                self._waiting.discard(machine)
            elif machine not in self._waiting:
                self._waiting.add(machine)
                report(
                    f"the cluster has no complete {machine}: {claimable[machine]} cells wait for "
                    "one, which an autoscaler is asked for"
                )

    def collect(self, report: Callable[[str], None]) -> None:
        """Takes the results of workers that have ended, and what the others have to say."""
        ray = self.cluster.ray
        for line in take_lines(self.run_id, self._shown):
            report(line)
        running = list(self._running)
        ended, _ = ray.wait(running, num_returns=len(running), timeout=0) if running else ([], [])
        for ref in ended:
            machine, actor = self._running.pop(ref)
            try:
                result: WorkResult = ray.get(ref)
            except ray.exceptions.RayError as failure:
                cause = getattr(failure, "cause", None) or failure
                error = redact(format_error(cause, max_chars=300))
                result = WorkResult(end="failed", error=error)
            ray.kill(actor)
            if result.error is not None:
                self._failed[machine] += 1
                if self.live and (self.failure is None or result.error != self.failure.error):
                    report(f"a worker on {machine} has ended: {result.error}")
                self.failure = result

    def wait_until_up(self, seconds: float) -> int:
        """How many detached workers there are; raises StudyError if none can start."""
        ray = self.cluster.ray
        actors = {actor.__ray_ready__.remote(): actor for _, actor in self._running.values()}
        up, _ = ray.wait(list(actors), num_returns=len(actors), timeout=seconds)
        failures = []
        for ref in up:
            try:
                ray.get(ref)
            except ray.exceptions.RayError as error:
                failures.append(redact(format_error(error, max_chars=300)))
        if failures and len(failures) == len(actors):
            raise StudyError(f"no worker could start: {failures[0]}")
        return len(actors) - len(failures)

    def _start(self, machine: str) -> None:
        spec = dataclasses.replace(
            self._specs[machine], name=f"{self.run_id}-{machine}-{self._started}"
        )
        self._started += 1
        self.names.add(spec.name)
        # Ray starts the actor again wherever it dies, and `run` with it.
        options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1}
        if self.detached:
            options |= {"name": spec.name, "lifetime": "detached", "namespace": NAMESPACE}
        if not self.cluster.own and (stable := self._nodes.stable()):
            options |= {"label_selector": on_nodes(stable), "scheduling_strategy": "SPREAD"}
        cls: type = LocalWorker
        arguments = [spec, self._expected, self.detached]
        if is_local(machine):
            count = cores_of(machine)
            options |= {"num_cpus": count, "num_gpus": self.cluster.gpus_per_worker}
            variables = environment(cores=count) if count > 1 else self.cluster.environment
        else:
            cls, variables = SliceWorker, NICENESS
            options["num_cpus"] = 0
            arguments.append(gang_environment())
        if variables:  # an actor without variables of its own may take a process that is up
            options["runtime_env"] = {"env_vars": dict(variables)}
        actor = self.cluster.ray.remote(cls).options(**options).remote(*arguments)
        self._running[actor if self.detached else actor.run.remote()] = machine, actor
