"""Runs the cells of a study on Ray until every one is over. All state is in the records.

What happens to a cell whose worker dies, or that raises, is in `sweeps.queue`; bad input is not
tried again, and a full disk ends the sweep. When Ray itself dies it is started again.
"""

from __future__ import annotations

import inspect
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.cell import to_dict
from study.places import children, made, place, removed
from study.records import RecordError, write_failure
from sweeps import compiled, ledger
from sweeps.cluster import check_address, cluster, quiet, slots, temporary
from sweeps.grid import Study, StudyError, one_line
from sweeps.lease import LEASE, Lease, holder_of
from sweeps.queue import CRASHES, TRIES, Job, Queue
from sweeps.report import Now, Report, Running, Silent, Steps, duration, headline
from sweeps.stop import INTERRUPTED, Stop
from sweeps.worker import TRAIN, Outcome, Task, load, run_cell

RESTARTS = 3  # of Ray
TIME_TO_STOP = 15.0  # seconds that cells get to save and stop
_DRIVER = ".driver-"


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a sweep ended.

    Attributes:
      exit_code: 0 all cells over, 1 some failed, 130 interrupted.
      states: cells of the study per state.
      ran: ids of the cells that this sweep brought to their end.
      parallel: cells at a time.
      seconds: wall time, the start of Ray included.
      train_seconds: that cells spent in training steps, summed over `ran`.
      examples: that this sweep trained on, summed over `ran`.
    """

    study: str
    exit_code: int
    states: dict[ledger.State, int]
    ran: tuple[str, ...] = ()
    parallel: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    examples: int = 0


def run(
    study: Study,
    root: str | Path,
    *,
    parallel: int = 2,
    address: str | None = None,
    entry: str | Callable[..., Any] = TRAIN,
    report: Report | None = None,
    backoff: float = 1.0,
) -> Result:
    """Brings every cell of `study` to its end; cells that are over are not entered again.

    Arguments:
      root: the folder of all records; those of this study go to `study.folder(root)`.
      parallel: cells at a time.
      address: of a Ray cluster to join, whose hosts must see `root` and the data at the same
        paths; None starts a cluster of our own.
      entry: what trains a cell, "module:function" or a function that workers can import.
      report: is told what happens.
      backoff: seconds before the first new try of a cell.

    Raises:
      StudyError: Ray cannot be started, or dies again and again.
      RecordError: a record cannot be written or trusted; the sweep has stopped.
    """
    report = report or Silent()
    root = place(root).absolute()
    before = ledger.read(study, root)
    if all(e.over for e in before):
        return Result(study=study.name, exit_code=0, states=ledger.count(before))
    if callable(entry):
        entry = f"{entry.__module__}:{entry.__qualname__}"
    began = time.monotonic()
    with Stop() as stop:
        sweep = _Sweep(study, root, before, stop=stop, report=report, entry=entry, backoff=backoff)
        try:
            stop.raises = True
            _make_folder(study.folder(root))
            if address is not None:
                check_address(address)
            prepare(study, report)
            keep_programs(report)
            sweep.on_ray(parallel, address)
        except KeyboardInterrupt:
            stop.asked = True
    after = ledger.read(study, root)
    ran = [e for e in after if e.over and e.cell.id in sweep.ended]
    trained_before = {e.cell.id: e.progress.examples_seen for e in before}
    stopped = stop.asked and not all(e.over for e in after)
    return Result(
        study=study.name,
        exit_code=INTERRUPTED if stopped else min(1, ledger.exit_code(after)),
        states=ledger.count(after),
        ran=tuple(e.cell.id for e in ran),
        parallel=sweep.parallel,
        seconds=time.monotonic() - began,
        train_seconds=sum(e.done.get("seconds", {}).get("train", 0.0) for e in ran),
        examples=sum(e.progress.examples_seen - trained_before[e.cell.id] for e in ran),
    )


def prepare(study: Study, report: Report) -> None:
    """Makes the study's data set if it is not there; says so if that takes more than a moment."""
    if study.prepare is None:
        return
    make = load(study.prepare) if isinstance(study.prepare, str) else study.prepare
    data_root = Path(study.data_root).absolute()
    slow = threading.Timer(
        1.0, report.line, [f"making the data set of {study.name} under {data_root} (once)"]
    )
    slow.start()
    try:
        takes = inspect.signature(make).parameters
        more = {"cells": study.cells} if "cells" in takes else {}
        if "progress" in takes:
            with Steps() as steps:
                make(data_root, progress=steps, **more)
        else:
            make(data_root, **more)
    finally:
        slow.cancel()


def keep_programs(report: Report) -> None:
    """Makes the folder of compiled programs fit for use; says so if it is not."""
    folder = compiled.folder()
    compiled.mend(folder)
    if (why := compiled.trouble(folder)) is not None:
        report.line(why)


class _Sweep:
    """The loop of one sweep: submits, collects, and says what happened."""

    def __init__(
        self,
        study: Study,
        root: Path,
        entries: list[ledger.Entry],
        *,
        stop: Stop,
        report: Report,
        entry: str,
        backoff: float,
    ):
        self.study, self.root, self.stop, self.report, self.entry = study, root, stop, report, entry
        self.parallel = 0
        self.cells, self.over, self.failed = len(entries), sum(e.over for e in entries), 0
        self.ended: set[str] = set()
        self.queue = Queue(entries, backoff=backoff)
        self.in_flight: dict[Any, Job] = {}
        self.target = sum(e.cell.examples for e in entries)
        self.seen = {e.cell.id: e.progress.examples_seen for e in entries}
        self.data_root = str(Path(study.data_root).absolute())
        self._held: set[str] = set()

    def on_ray(self, parallel: int, address: str | None) -> None:
        """Starts Ray, and again when it dies under us, until no cell is left."""
        self.parallel = slots(parallel) if address is None else parallel
        died: str | None = None
        with temporary() as temp, quiet(temp / "driver.log") as terminal:
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
        return died

    def with_driver(self, up: Any) -> str | None:
        """Submits and collects until nothing is left; returns what of Ray died, or None.

        The driver has a lease of its own: cells stop when it is gone, whether we let go of it
        (that is how they are asked to) or were killed.
        """
        path = self.study.folder(self.root) / f"{_DRIVER}{uuid.uuid4().hex[:8]}" / LEASE
        submit = up.ray.remote(num_cpus=1, max_retries=0, num_gpus=up.gpus_per_cell)(run_cell)
        until: float | None = None
        lease = Lease.acquire(path)
        try:
            while self.in_flight or (len(self.queue) and not self.stop.asked):
                died = up.dead()
                if died is not None:
                    return died
                if self.stop.asked and until is None:
                    until = time.monotonic() + TIME_TO_STOP
                    lease.release()
                    self.report.line(
                        f"stopping: {len(self.in_flight)} cells save what they have "
                        "(Ctrl-C again quits at once)"
                    )
                if until is not None and time.monotonic() > until:
                    return None
                if until is None:
                    self.submit(submit, path)
                try:
                    self.collect(up.ray)
                except (ConnectionError, up.ray.exceptions.RayError) as error:
                    return one_line(error)[:200]
                self.show()
            return None
        finally:
            lease.release()
            removed(path.parent)

    def submit(self, submit: Any, driver: Path) -> None:
        now = time.monotonic()
        for job in self.queue.ready(now):
            if len(self.in_flight) >= self.parallel:
                return
            self.look(job)
            self.queue.take(job)
            if job.entry.over:
                self.count(job, f"{job.entry.state} by another run")
            elif job.entry.holder is not None:
                if job.entry.cell.id not in self._held:
                    self._held.add(job.entry.cell.id)
                    self.report.line(f"{job.entry.cell.id} is run by {job.entry.holder}; waiting")
                self.queue.give_back(job, now, 1.0)
            else:
                job.began = now
                execution = vars(self.study.execution_of(job.entry.cell))
                task = Task(
                    cell=to_dict(job.entry.cell),
                    execution=execution | {"data_root": self.data_root},
                    folder=str(job.entry.folder),
                    study=self.study.records,
                    entry=self.entry,
                    driver=str(driver),
                )
                self.in_flight[submit.remote(task)] = job

    def collect(self, ray: Any) -> None:
        if not self.in_flight:
            time.sleep(0.2)
            return
        ready, _ = ray.wait(list(self.in_flight), timeout=self.report.every)
        for ref in ready:
            try:
                outcome = ray.get(ref)
            except ray.exceptions.RayTaskError as error:  # of our own code: run_cell returns
                outcome = Outcome(end="failed", pid=0, error=one_line(error.cause or error)[:500])
            except ray.exceptions.RayError as error:
                outcome = Outcome(end="crashed", pid=0, error=type(error).__name__)
            job = self.in_flight.pop(ref)
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
        elif outcome.end in ("stopped", "held"):
            self.queue.give_back(job, now, 1.0)
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
        self.seen[job.entry.cell.id] = job.entry.progress.examples_seen

    def count(self, job: Job, text: str) -> None:
        self.over += 1
        self.seen[job.entry.cell.id] = job.entry.cell.examples  # also of one that diverged
        self.report.line(f"[{self.over}/{self.cells}] {job.entry.cell.id} {text}".rstrip())

    def fail(self, job: Job, error: str) -> None:
        self.failed += 1
        self.report.line(f"{job.entry.cell.id} failed: {error}")

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
                failed=self.failed,
                examples=sum(self.seen.values()),
                target=self.target,
                running=[
                    Running(
                        entry=job.entry,
                        seconds=now - job.began,
                        attempt=job.entry.progress.attempts,
                    )
                    for job in jobs
                ],
            )
        )


def _make_folder(folder: Path) -> None:
    try:
        made(folder)
    except OSError as error:
        said = error.strerror or error
        raise RecordError(f"cannot write {folder}: {said}; choose another --root") from None
    for left in children(folder):  # by drivers that were killed
        if left.name.startswith(_DRIVER) and holder_of(left / LEASE) is None:
            removed(left)
