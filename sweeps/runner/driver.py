"""The loop of one sweep: submits cells to machines that are free, and collects how they ended."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study.config import to_dict
from study.records.record import RecordError, write_failure
from study.records.redact import redact
from study.records.storage import format_error, rmtree
from sweeps.ray_cluster.local import (
    Cluster,
    cluster,
    environment,
    gang_environment,
    quiet,
    slots,
    temporary,
)
from sweeps.runner import cell_status as ledger
from sweeps.runner.autoscale import Asking, short
from sweeps.runner.capacity import LOCAL, Pool, steady
from sweeps.runner.display import Now, Report, Running, duration, headline, percent
from sweeps.runner.job_queue import CRASHES, PREEMPTIONS, TRIES, Job, Queue, admitted, priorities
from sweeps.runner.lease_file import DRIVER, LEASE, Lease
from sweeps.runner.remaining import Remaining
from sweeps.runner.signals import Stop
from sweeps.runner.slice_run import run_gang
from sweeps.runner.worker import Outcome, Task, run_cell
from sweeps.study import Study, StudyError

RESTARTS = 3  # of Ray
UNPLACED = 5.0  # seconds before a cell asks again for a slice that another took
TIME_TO_STOP = 15.0  # seconds that cells get to save and stop
SLICES_TO_STOP = 60.0  # where several hosts have to agree, and to write more
LOOK = 2.0  # seconds between two looks at the cluster, and at marks


class Sweep:
    """The loop of one sweep: submits, collects, and says what happened."""

    def __init__(
        self,
        study: Study,
        root: Path,
        entries: list[ledger.Entry],
        *,
        kinds: Mapping[str, str],
        stop: Stop,
        report: Report,
        entry: str,
        backoff: float,
        first: Sequence[str] = (),
    ):
        self.study, self.root, self.stop, self.report, self.entry = study, root, stop, report, entry
        self.kinds = kinds
        self.pool = Pool(local=0, caps={})
        self.cells, self.over = len(entries), sum(e.over for e in entries)
        self.ended: set[str] = set()
        self.failed: list[Job] = []
        self.queue = Queue(
            [e for e in entries if e.to_run],
            backoff=backoff,
            ahead=priorities(study, first),
            kinds=kinds,
        )
        self.cancelled = [Job(entry=e) for e in entries if e.state == "cancelled"]
        self.in_flight: dict[Any, Job] = {}
        self.weight = {e.cell.id: ledger.work(study, e.cell) / e.cell.examples for e in entries}
        self.target = sum(e.cell.examples * self.weight[e.cell.id] for e in entries)
        self.entries = {e.cell.id: e for e in entries}
        self.remaining = Remaining(study)
        self.seen = {e.cell.id: e.progress.examples_seen for e in entries}
        self.data_root = str(Path(study.data_root).absolute())
        self._held: set[str] = set()
        self._said: set[str] = set()
        self._looked = self._estimated = float("-inf")
        self._seconds_left: float | None = None
        self._asking = Asking()

    @property
    def parallel(self) -> int:
        return self.pool.caps[LOCAL]

    def on_ray(
        self, parallel: int, caps: Mapping[str, int], at_once: int | None, address: str | None
    ) -> None:
        """Starts Ray, and again when it dies under us, until no cell is left."""
        local = slots(parallel) if address is None else parallel
        self.pool = Pool(local=local, caps=caps, at_once=at_once)
        died: str | None = None
        errors = self.report.errors
        with temporary() as temp, quiet(temp / "driver.log", errors=errors) as terminal:
            self.report.open(terminal)
            try:
                for _ in range(RESTARTS + 1):
                    died = self.one_cluster(address, temp, died)
                    if died is None or self.stop.asked or address is not None:
                        break
            finally:
                self.report.close()
        if died is not None and not self.stop.asked:
            raise StudyError(f"Ray stopped ({died}); what is recorded is kept: run the same again")

    def one_cluster(self, address: str | None, temp: Path, died: str | None) -> str | None:
        """Runs cells until none is left or Ray dies; `died` is what ended the cluster before."""
        where = f"joining {address}" if address else f"{self.parallel} cells at a time"
        said = f"Ray stopped ({died}); starting it again" if died else "starting Ray"
        self.report.line(f"{said}: {where}, {len(self.queue)} cells to run")
        self.stop.raises = True
        with cluster(parallel=self.parallel, address=address, temp=temp) as up:
            self.stop.raises = False
            self.stop.listen()  # Ray has put a handler of its own in
            self.stop.before_quitting = up.kill
            died = self.with_driver(up)
        for job in self.in_flight.values():
            self.queue.give_back(job, 0.0)
        self.in_flight.clear()
        self.pool.running.clear()
        self._asking.forget()
        return died

    def with_driver(self, up: Cluster) -> str | None:
        """Submits and collects until nothing is left; returns what of Ray died, or None.

        The driver has a lease of its own: cells stop when it is gone, whether we let go of it
        (that is how they are asked to) or were killed.
        """
        path = self.study.folder(self.root) / f"{DRIVER}{uuid.uuid4().hex[:8]}" / LEASE
        until: float | None = None
        lease = Lease.acquire(path)
        try:
            while self.in_flight or (len(self.queue) and not self.stop.asked):
                died = up.dead()
                if died is not None:
                    return died
                if self.stop.asked and until is None:
                    slices = self.pool.running.total() > self.pool.running[LOCAL]
                    until = time.monotonic() + (SLICES_TO_STOP if slices else TIME_TO_STOP)
                    lease.release()
                    self.report.line(
                        f"stopping: {len(self.in_flight)} cells save what they have "
                        "(Ctrl-C again quits at once)"
                    )
                if until is not None and time.monotonic() > until:
                    return None
                try:
                    if until is None:
                        self.look_around(up)
                        self.submit(up, path)
                    self.collect(up.ray)
                except (ConnectionError, up.ray.exceptions.RayError) as error:
                    return format_error(error, max_chars=200)
                self.show()
            return None
        finally:
            lease.release()
            rmtree(path.parent)

    def look_around(self, up: Cluster) -> None:
        """What the cluster has now, and which cells somebody put back with `study retry`."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        waiting = {job.kind for job in self.queue} - {LOCAL}
        if waiting:
            self.pool.look(waiting | set(self.pool.running), *up.machines())
            self.say_what_is_missing(waiting)
        if set(self.kinds.values()) != {LOCAL}:
            self._asking.want(short(self.queue, self.pool))
        for parked in (self.failed, self.cancelled):
            for job in list(parked):
                self.look(job)
                if job.entry.to_run and job.entry.state != "failed":
                    parked.remove(job)
                    self.queue.put(job.entry)
                    self.report.line(f"{job.entry.cell.id} is tried again, as `study retry` says")

    def say_what_is_missing(self, waiting: set[str]) -> None:
        for kind in sorted(waiting):
            if self.pool.whole(kind):
                self._said.discard(kind)
            elif kind not in self._said:
                self._said.add(kind)
                count = sum(job.kind == kind for job in self.queue)
                self.report.line(
                    f"the cluster has no whole {kind}: {count} cells wait for one, which is asked "
                    "for in case the cluster scales by itself"
                )

    def submit(self, up: Cluster, driver: Path) -> None:
        """Starts what there is room for."""
        now = time.monotonic()
        for job in admitted(self.queue, self.pool, now):
            self.look(job)
            self.queue.take(job)
            if job.entry.over:
                self.count(job, f"{job.entry.state} by another run")
            elif job.entry.state == "cancelled":
                self.park(job)
            elif job.entry.holder is not None:
                if job.entry.cell.id not in self._held:
                    self._held.add(job.entry.cell.id)
                    self.report.line(f"{job.entry.cell.id} is run by {job.entry.holder}; waiting")
                self.queue.give_back(job, now, 1.0)
            else:
                job.began = now
                self.pool.running[job.kind] += 1
                self.in_flight[self.start(up, job, driver)] = job

    def start(self, up: Cluster, job: Job, driver: Path) -> Any:
        execution = vars(self.study.execution_of(job.entry.cell))
        cores = min(execution["cores"], self.parallel)
        local = job.kind == LOCAL
        task = Task(
            cell=to_dict(job.entry.cell),
            execution=execution | {"data_root": self.data_root},
            folder=str(job.entry.folder),
            group=self.study.group,
            run_name=self.study.run_names[job.entry.cell.id],
            entry=self.entry,
            driver=str(driver),
            slice=None if local else job.kind,
        )
        if local:
            env = {} if up.environment is None else {"env_vars": up.environment}
            if cores > 1:
                env = {"env_vars": (up.environment or {}) | environment(cores=cores)}
            options = {"num_cpus": cores, "max_retries": 0, "num_gpus": up.gpus_per_cell}
            return up.ray.remote(**options, runtime_env=env)(run_cell).remote(task)
        where = up.steady(steady(up.ray.nodes()))
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": where}
        return up.ray.remote(**options)(run_gang).remote(task, gang_environment())

    def collect(self, ray: Any) -> None:
        if not self.in_flight:
            time.sleep(0.2)
            return
        ready, _ = ray.wait(list(self.in_flight), timeout=self.report.every)
        for ref in ready:
            try:
                outcome = ray.get(ref)
            except ray.exceptions.RayTaskError as error:  # of our own code: run_cell returns
                line = redact(format_error(error.cause or error, max_chars=100_000))[:500]
                outcome = Outcome(end="failed", pid=0, error=line)
            except ray.exceptions.RayError as error:
                outcome = Outcome(end="crashed", pid=0, error=type(error).__name__)
            job = self.in_flight.pop(ref)
            self.pool.running[job.kind] -= 1
            self.look(job)
            self.came_back(job, outcome)

    def came_back(self, job: Job, outcome: Outcome) -> None:
        now, cell_id, error = time.monotonic(), job.entry.cell.id, outcome.error or ""
        if job.entry.over:
            self.ended.add(cell_id)
            took = duration(now - job.began)
            self.count(job, f"{job.entry.state} in {took}  {headline(job.entry)}")
        elif outcome.end == "disk":
            raise RecordError(error)
        elif job.entry.state == "cancelled":
            self.park(job)
        elif outcome.end in ("stopped", "held"):
            self.queue.give_back(job, now, 1.0)
        elif outcome.end == "unplaced":
            self.queue.give_back(job, now, UNPLACED)
            self.report.line(f"{cell_id}: no whole {job.kind} was free after all; it waits")
        elif outcome.end == "preempted" and self.queue.preempted(job, now):
            said = f"{cell_id}: its {job.kind} was taken away ({error})"
            self.report.line(f"{said}; it goes on from its record on another")
        elif outcome.end == "preempted":
            error = f"taken away {PREEMPTIONS} times without getting further; is {job.kind} there?"
            write_failure(job.entry.folder, error=error)
            self.fail(job, error)
        elif outcome.end == "crashed" and self.queue.crashed(job, now):
            self.report.line(f"{cell_id}: its worker died ({error}); it goes on from its record")
        elif outcome.end == "crashed":
            error = (
                f"its worker died {CRASHES} times without getting further ({error}): out of "
                f"memory? `study train {self.study.name} {cell_id}` shows what it prints"
            )
            write_failure(job.entry.folder, error=error)
            self.fail(job, error)
        elif outcome.end == "failed" and self.queue.raised(job, now):
            self.report.line(f"{cell_id}: try {job.failures} of {TRIES} failed: {error}")
        else:
            self.fail(job, error)

    def look(self, job: Job) -> None:
        job.entry = ledger.entry(job.entry.cell, job.entry.folder)
        self.entries[job.entry.cell.id] = job.entry
        self.seen[job.entry.cell.id] = job.entry.progress.examples_seen

    def count(self, job: Job, text: str) -> None:
        self.over += 1
        self.seen[job.entry.cell.id] = job.entry.cell.examples  # also of one that diverged
        self.report.line(f"[{self.over}/{self.cells}] {job.entry.cell.id} {text}".rstrip())

    def park(self, job: Job) -> None:
        self.cancelled.append(job)
        self.report.line(f"{job.entry.cell.id} cancelled at {percent(job.entry)}")

    def fail(self, job: Job, error: str) -> None:
        self.failed.append(job)
        self.report.line(f"{job.entry.cell.id} failed: {error}")

    def waits_for(self, job: Job) -> str:
        return job.kind if self.pool.whole(job.kind) else f"{job.kind} (none is up)"

    def seconds_left(self, now: float) -> float | None:
        """Until no cell is left to run; estimated anew every `LOOK` seconds."""
        if now - self._estimated >= LOOK:
            self._estimated = now
            local = min(self.pool.caps[LOCAL], self.pool.at_once or self.cells)
            self._seconds_left = self.remaining.seconds(
                self.entries.values(),
                workers={**self.pool.running, LOCAL: local},
                spent={job.entry.cell.id: now - job.began for job in self.in_flight.values()},
            )
        return self._seconds_left

    def show(self) -> None:
        jobs = list(self.in_flight.values())
        for job in jobs:
            self.look(job)
        now = time.monotonic()
        self.report.progress(
            Now(
                study=self.study.name,
                cells=self.cells,
                over=self.over,
                failed=len(self.failed),
                waiting=Counter(self.waits_for(j) for j in self.queue if j.kind != LOCAL),
                done=sum(seen * self.weight[cell] for cell, seen in self.seen.items()),
                target=self.target,
                seconds_left=self.seconds_left(now),
                running=[
                    Running(
                        entry=job.entry,
                        seconds=now - job.began,
                        attempt=job.entry.progress.attempts,
                        kind=job.kind,
                    )
                    for job in jobs
                ],
            )
        )
