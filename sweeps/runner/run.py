"""Runs the unfinished cells of a study by workers on Ray. All state is in the records.

Workers claim cells by themselves (`sweeps.runner.worker`). This starts them, shows the records
until no cell is left, and asks the workers to stop on Ctrl-C.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.records.mounts import refuse_mounted_bucket
from study.records.record import RecordError
from study.records.storage import format_error, mkdir, resolve
from sweeps.ray_cluster.connect import Cluster, check_member, find_address, join, start
from sweeps.ray_cluster.temporary import quiet, temporary
from sweeps.runner import cell_status
from sweeps.runner.cell_status import CellStatus
from sweeps.runner.display import Report
from sweeps.runner.launch import Workers, own_cores
from sweeps.runner.machines import cores_of, is_local, machine_of, machines
from sweeps.runner.marks import clear_stop, request_stop
from sweeps.runner.prepare import prepare
from sweeps.runner.progress import SweepProgress
from sweeps.runner.signals import INTERRUPTED, Stop
from sweeps.runner.store import open_store
from sweeps.runner.worker_spec import TRAIN
from sweeps.study import Study, StudyError

RESTARTS = 3  # of a Ray of our own
LOOK_S = 2.0  # seconds between two looks at the cluster and the workers
STOP_S, SLICES_STOP_S = 15.0, 60.0  # that workers get to save; several hosts have to agree
END_S = 30.0  # that workers get to end once no cell is left


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a sweep ended."""

    study: str
    # 0: all cells are finished or cancelled, or the workers detached. 1: some failed. 130: Ctrl-C.
    exit_code: int
    states: dict[cell_status.State, int]  # cells per state
    ran: tuple[str, ...] = ()  # ids of the cells that this sweep finished
    parallel: int = 0  # local cores that it used
    seconds: float = 0.0  # wall time, the start of Ray included
    train_seconds: float = 0.0  # of cores in training steps, summed over `ran`
    examples: int = 0  # that this sweep trained on, summed over `ran`
    run_id: str = ""  # of its workers; "" if it started none
    detached: int = 0  # workers that it left running


def run(
    study: Study,
    root: str | Path = "runs",
    *,
    workers: Mapping[str, int] | None = None,
    first: Sequence[str] = (),
    address: str | None = None,
    detach: bool = False,
    entry: str | Callable[..., Any] = TRAIN,
    report: Report | None = None,
) -> Result:
    """Trains the unfinished cells of `study`; finished cells are not entered again.

    Arguments:
      root: the folder of all records; those of this study go to `study.folder(root)`.
      workers: their number by type of machine, such as {"v4-32": 4}. By default as many as there
        are cores for local cells, and as many as there are idle slices for others.
      first: ids of cells that start before the others of their machine, in this order.
      address: "HOST:PORT" of a Ray cluster to join, whose hosts must see `root` and the data at
        the same paths; "auto" for the one that runs on this machine; "local" starts one. None is
        RAY_ADDRESS, or else "local".
      detach: leave the workers running on the cluster, and return.
      entry: what trains a cell, "module:function" or a function that workers can import.
      report: is told what happens.

    Raises:
      StudyError: the machines do not exist, or Ray cannot be started or joined, or dies.
      RecordError: no worker can write its records.
    """
    report = report or Report()
    root = resolve(root).absolute()
    refuse_mounted_bucket(root)
    machine_by_id = machines(study)
    before = cell_status.read(study, root)
    needed = sorted({machine_by_id[s.cell.id] for s in before if s.runnable})
    if not needed:
        return Result(study=study.name, exit_code=0, states=cell_status.count(before))
    counts = dict(workers or {})
    if unused := sorted(set(counts) - set(machine_by_id.values())):
        types = ", ".join(sorted(set(machine_by_id.values())))
        raise StudyError(f"no cell runs on {unused[0]}: the cells of {study.name} ask for {types}")
    address = find_address(address)
    if detach and address is None:
        raise StudyError(
            "--detach leaves workers on a cluster: give --address HOST:PORT or auto to join one"
        )
    if address is not None:
        check_member(address)  # before the data are prepared, which may take minutes
    if callable(entry):
        entry = f"{entry.__module__}:{entry.__qualname__}"
    began, run_id, folder = time.monotonic(), uuid.uuid4().hex[:8], study.folder(root)
    cpus = own_cores(counts, needed) if address is None else 0
    try:
        mkdir(folder)
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"cannot write {folder}: {reason}; choose another --root") from None
    with Stop() as stop:
        sweep = _Sweep(
            study=study,
            root=root,
            run_id=run_id,
            address=address,
            cpus=cpus,
            detach=detach,
            stop=stop,
            report=report,
            workers_on=functools.partial(
                Workers,
                study=study,
                folder=folder,
                run_id=run_id,
                counts=counts,
                detached=detach,
                first=first,
                entry=entry,
            ),
        )
        try:
            stop.raises = True
            prepare(study, report)
            sweep.run()
        except KeyboardInterrupt:
            stop.asked = True
        finally:
            if not detach:
                clear_stop(folder, run_id)
    return sweep.result(before, time.monotonic() - began)


@dataclass(kw_only=True)
class _Sweep:
    """One `study run`. `workers_on` makes the `Workers` of a cluster."""

    study: Study
    root: Path
    run_id: str
    address: str | None
    cpus: int
    detach: bool
    stop: Stop
    report: Report
    workers_on: Callable[[Cluster], Workers]
    detached: int = 0

    def run(self) -> None:
        """Starts Ray, and again when our own dies, until no cell is left."""
        died: str | None = None
        with temporary() as temp, quiet(temp / "log", errors=self.report.errors) as terminal:
            self.report.open(terminal)
            try:
                for _ in range(RESTARTS + 1):
                    died = self._on_one_cluster(temp, died)
                    if died is None or self.stop.asked or self.address is not None:
                        break
            finally:
                self.report.close()
        if died is not None and not self.stop.asked:
            raise StudyError(f"Ray stopped ({died}); what is recorded is kept: run the same again")

    def _on_one_cluster(self, temp: Path, died: str | None) -> str | None:
        """Returns what of Ray died, or None; `died` is what ended the cluster before."""
        if self.address is not None:
            self.report.line(f"joining the Ray cluster at {self.address}")
        elif died is not None:
            self.report.line(f"Ray stopped ({died}); starting it again")
        else:
            self.report.line(f"starting Ray on {self.cpus} cores")
        self.stop.raises = True
        context = start(cpus=self.cpus, temp=temp) if self.address is None else join(self.address)
        with context as cluster:
            self.stop.raises = False
            self.stop.listen()  # Ray has installed its own handler
            self.stop.before_quitting = cluster.kill
            workers = self.workers_on(cluster)
            self.cpus = workers.cores
            try:
                if not self.detach:
                    return self._watch(cluster, workers)
                workers.top_up(cell_status.read(self.study, self.root), self.report.line)
                self.detached = workers.wait_until_up(END_S)
            except (ConnectionError, cluster.ray.exceptions.RayError) as error:
                return format_error(error, max_chars=200)
        return None

    def _watch(self, cluster: Cluster, workers: Workers) -> str | None:
        """Shows the records until no cell is left; returns what of Ray died, or None."""
        progress = SweepProgress(self.study, self.root, self.report)
        store = open_store(self.study.folder(self.root))
        pause = max(self.report.every, store.poll_s)
        statuses: list[CellStatus] = []
        looked = float("-inf")
        until: float | None = None  # when the workers are ended
        responded = time.monotonic()
        while True:
            if (died := cluster.dead()) is not None:
                return died
            now = time.monotonic()
            try:
                statuses = progress.tick(workers.live)
                responded = now
            except (OSError, RecordError):
                if now - responded > store.stale_s:
                    raise
            left = any(status.runnable for status in statuses)
            if now - looked >= LOOK_S or not left:
                looked = now
                workers.collect(self.report.line)
                if until is None and left:
                    workers.top_up(statuses, self.report.line)
            if until is None and self.stop.asked:
                until = now + self._ask_to_stop(workers, statuses)
            elif until is None and not left:
                until = now + END_S  # for the workers to free their leases
            if until is not None and (not workers.live or now > until):
                return None
            if not workers.live and workers.failure is not None and left:
                full = workers.failure.end == "no space"
                raise (RecordError if full else StudyError)(workers.failure.error)
            time.sleep(pause if left else 0.2)

    def _ask_to_stop(self, workers: Workers, statuses: Sequence[CellStatus]) -> float:
        """Asks all workers to save and stop; returns the seconds that they get."""
        request_stop(self.study.folder(self.root), self.run_id)
        count = sum(s.owner is not None and s.owner.worker in workers.names for s in statuses)
        running = "the running cell is" if count == 1 else f"{count} running cells are"
        saved = f": {running} saved" if count else ""
        self.report.line(f"stopping{saved} (Ctrl-C again quits at once)")
        return STOP_S if all(map(is_local, workers.live)) else SLICES_STOP_S

    def result(self, before: Sequence[CellStatus], seconds: float) -> Result:
        """Reads the records once more."""
        after = cell_status.read(self.study, self.root)
        finished = {s.cell.id for s in before if s.finished}
        trained_before = {s.cell.id: s.progress.examples_seen for s in before}
        ran = [
            s
            for s in after
            if s.finished
            and s.cell.id not in finished
            and s.attempts.all
            and s.attempts.all[-1].worker.startswith(self.run_id)
        ]
        code = min(1, cell_status.exit_code(after))
        if self.stop.asked and any(s.runnable for s in after):
            code = INTERRUPTED
        return Result(
            study=self.study.name,
            exit_code=0 if self.detached else code,
            states=cell_status.count(after),
            ran=tuple(s.cell.id for s in ran),
            parallel=self.cpus,
            seconds=seconds,
            train_seconds=sum(map(self._train_seconds, ran)),
            examples=sum(s.progress.examples_seen - trained_before[s.cell.id] for s in ran),
            run_id=self.run_id,
            detached=self.detached,
        )

    def _train_seconds(self, status: CellStatus) -> float:
        """Of all cores of a local cell together."""
        seconds: float = status.done.get("seconds", {}).get("train", 0.0)
        machine = machine_of(self.study.execution_of(status.cell))
        return seconds * cores_of(machine) if is_local(machine) else seconds
