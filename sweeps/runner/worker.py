"""A worker: claims cells one after another and trains them, until none is left for its machine.

Needs no Ray. On several hosts a worker is one SPMD program: every host calls `work` after
`study.training.multihost.join`; process 0 claims a cell and broadcasts its id, all train it, and
process 0 releases it. JAX starts once for a worker, and cells alike share compiled programs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from study.records.record import RecordError
from study.records.redact import redact
from study.records.storage import format_error, resolve, unlink
from sweeps.runner import cell_status
from sweeps.runner.attempts import Outcome
from sweeps.runner.cell_status import CellStatus, StudyState
from sweeps.runner.claims import Claim, Claimer
from sweeps.runner.display import duration, headline
from sweeps.runner.failures import blame, classify, is_no_space, record_failure
from sweeps.runner.lease import Heartbeats, Lease, LeaseLost
from sweeps.runner.logs import logged
from sweeps.runner.marks import stop_requested
from sweeps.runner.repeating import repeating
from sweeps.runner.signals import StopFlag
from sweeps.runner.store import CANCELLED, open_store
from sweeps.runner.worker_spec import CellTask, WorkerSpec

_PASS_S = 1.0  # seconds between two looks for a cell; longer in a bucket

_REASONS: tuple[Outcome, ...] = ("preempted", "stopped", "cancelled")  # the first one counts
_VERBS = {"raised": "failed", "invalid": "failed", "stopped": "saved", "no space": "stopped"}

# Why a worker ends. "finished": no cell is left for its machine.
End = Literal["finished", "idle", "stopped", "preempted", "no space", "failed"]


@dataclass(frozen=True, kw_only=True)
class WorkResult:
    """How a worker ended."""

    end: End
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # of the last attempt at each cell
    error: str | None = None  # one line, of ends that are errors


def work(
    spec: WorkerSpec,
    *,
    stop: StopFlag | None = None,
    report: Callable[[str], None] = lambda line: None,
    seen: Mapping[str, tuple[str, float]] | None = None,
) -> WorkResult:
    """Claims and trains cells until none is left, `stop` is set or the run's stop mark appears.

    Every process of a multi-host worker calls this; all return the same end.

    Arguments:
      stop: any process may set it; all of them stop at the same step.
      report: takes a line for each event, on process 0 only.
      seen: leases that another process has watched; see `Heartbeats`.

    Raises:
      Exception: a cell failed on one of several processes, which cannot go on together. What
        happened is recorded; start the processes again.
    """
    stop = stop or StopFlag()
    hosts = _Hosts()
    tasks = {task.cell.id: task for task in spec.tasks}
    leader = _Leader(spec, stop, report, seen) if hosts.index == 0 else None
    outcomes: dict[str, Outcome] = {}
    while True:
        hosts.share(stop)
        command = hosts.broadcast(None if leader is None else leader.command())
        if "wait" in command:
            if leader is not None:  # the others wait for its next command
                stop.wait(command["wait"])
        elif "end" in command:
            return WorkResult(end=command["end"], outcomes=outcomes, error=command.get("error"))
        else:
            task = tasks[command["run"]]
            outcomes[task.cell.id], _ = _attempt(task, spec, stop, leader, hosts)


def train_once(
    spec: WorkerSpec,
    *,
    stop: StopFlag,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Outcome, str | None]:
    """Trains the only cell of `spec` in this process, whatever its budget of attempts.

    Returns:
      How the attempt ended, and one line about an error.

    Raises:
      RecordError: another process trains the cell.
    """
    (task,) = spec.tasks
    leader = _Leader(spec, stop, report)
    status = _when_free(leader)
    leader.claim = None if status is None else leader.claimer.claim(status)
    if status is None or leader.claim is None:
        shown = cell_status.read_cell(task.cell, leader.state.folder / task.cell.id)
        owner = shown.owner or "another process"
        raise RecordError(f"{task.cell.id} is being trained by {owner}; wait for it or stop it")
    unlink(status.folder / CANCELLED)  # else it would stop at once
    return _attempt(task, spec, stop, leader, _Hosts())


def _when_free(leader: _Leader) -> CellStatus | None:
    """The status of the only cell once nobody trains it; None if somebody does.

    A lease whose file is old is watched: the clock of this machine may be ahead.
    """
    store = leader.store
    (status,) = leader.state.refresh()
    if (first := status.lease) is not None and status.owner is not None:
        if time.time() - first.mtime <= store.stale_s:
            return None
        leader.report(
            f"{status.cell.id} has an old lease; waiting {store.stale_s:.0f} s to make sure that "
            "its owner is gone"
        )
        while status.owner is not None and status.lease == first:
            if leader.stop.wait(store.poll_s):
                break
            (status,) = leader.state.refresh()
    return None if status.owner is not None else status


class _Hosts:
    """The processes of this worker: one, or all that `jax.distributed` has joined."""

    def __init__(self) -> None:
        self.count, self.index = 1, 0
        # A worker of one process leaves it to the cell to import JAX.
        if "jax" in sys.modules:
            import jax

            self.count, self.index = jax.process_count(), jax.process_index()

    def share(self, flag: StopFlag) -> None:
        """Sets the flag on all processes if it is set on one. All of them must call this."""
        if self.count == 1:
            return
        from study.training.multihost import any_process

        given = any_process(*(flag.reason == reason for reason in _REASONS))
        for reason, is_given in zip(_REASONS, given, strict=True):
            if is_given:
                flag.set(reason)

    def broadcast(self, command: dict[str, Any] | None) -> dict[str, Any]:
        """The command of process 0; the line of an error stays there."""
        if self.count > 1:
            from study.training.multihost import broadcast_text

            brief = {k: v for k, v in (command or {}).items() if k != "error"}
            sent = broadcast_text(json.dumps(brief))
            command = command or json.loads(sent)
        assert command is not None
        return command


class _Leader:
    """What only process 0 of a worker does: claims, leases, marks and lines."""

    def __init__(
        self,
        spec: WorkerSpec,
        stop: StopFlag,
        report: Callable[[str], None],
        seen: Mapping[str, tuple[str, float]] | None = None,
    ):
        self.spec, self.stop, self.report = spec, stop, report
        folder = resolve(spec.folder)
        self.store = open_store(folder)
        self.state = StudyState(
            [task.cell for task in spec.tasks],
            folder,
            store=self.store,
            heartbeats=Heartbeats(self.store, seen=seen),
            for_claims=True,
        )
        ranks = {task.cell.id: task.rank for task in spec.tasks}
        self.claimer = Claimer(self.state, ranks, worker=spec.name)
        self.claim: Claim | None = None  # of the cell that is being trained
        self._error: str | None = None  # that ends the worker
        self._idle_since: float | None = None
        self._trouble_since: float | None = None

    def command(self) -> dict[str, Any]:
        """What all processes do next."""
        if self._error is not None:
            return {"end": "no space", "error": self._error[:300]}
        began = time.monotonic()
        try:
            self._look_for_stop()
            if self.stop.is_set():
                return {"end": "preempted" if self.stop.reason == "preempted" else "stopped"}
            self.claim, left = self.claimer.next()
        except (OSError, RecordError) as error:
            return self._wait_for_storage(error)
        self._trouble_since = None
        if self.claim is not None:
            self._idle_since = None
            return {"run": self.claim.status.cell.id}
        if not left:
            return {"end": "finished"}
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        max_idle = self.spec.max_idle_s
        if max_idle is not None and now - self._idle_since > max_idle:
            return {"end": "idle"}
        return {"wait": self.claimer.idle_s(now - began)}

    def _wait_for_storage(self, error: Exception) -> dict[str, Any]:
        """Transient errors are waited out, as long as a lease would live without a heartbeat."""
        now = time.monotonic()
        self._trouble_since = self._trouble_since or now
        if now - self._trouble_since > self.store.stale_s or is_no_space(error):
            line = redact(" ".join(str(error).split()))[:300]
            return {"end": "no space" if is_no_space(error) else "failed", "error": line}
        return {"wait": max(_PASS_S, self.store.poll_s)}

    def _look_for_stop(self) -> None:
        if not self.stop.is_set() and stop_requested(self.store, self.spec.run_id):
            self.stop.set("stopped")

    def look_at_marks(self, cell_id: str, flag: StopFlag) -> None:
        """Sets `flag` if the cell is cancelled; `stop` if the run is stopped."""
        if self.store.read(cell_id, CANCELLED) is not None:
            flag.set("cancelled")
        self._look_for_stop()

    def owns_cell(self) -> bool:
        """Whether the lease certainly still is this worker's."""
        assert self.claim is not None
        try:
            self.claim.lease.check()
        except LeaseLost:
            return False
        return True

    def start(self) -> Lease:
        """Begins the attempt at the claimed cell."""
        assert self.claim is not None
        number = len(self.claim.attempts.all)
        again = f", attempt {number}" if number > 1 else ""
        self.report(f"{self.claim.status.cell.id} started{again}")
        return self.claim.lease.start()

    def finish(
        self, outcome: Outcome, error: str | None, done: dict[str, Any], seconds: float
    ) -> None:
        """Records how the attempt ended, frees the lease and reports a line."""
        assert self.claim is not None
        cell_id = self.claim.status.cell.id
        if self.owns_cell():  # else the record may be another worker's
            attempts = self.claim.attempts.end(outcome, at=time.time(), error=error)
            try:
                attempts.save(self.store, cell_id)
            except (OSError, RecordError) as trouble:  # whoever claims the cell next records it
                if is_no_space(trouble):
                    outcome, error = "no space", error or format_error(trouble)
        self.claim.lease.release()
        self.claim = None
        if outcome == "no space":
            self._error = error
        note = f": {error}" if error else f" in {duration(seconds)}"
        self.report(f"{cell_id} {_VERBS.get(outcome, outcome)}{note}  {headline(done)}".rstrip())


def _attempt(
    task: CellTask, spec: WorkerSpec, stop: StopFlag, leader: _Leader | None, hosts: _Hosts
) -> tuple[Outcome, str | None]:
    """Trains the claimed cell on all processes and records how that ended."""
    folder = resolve(spec.folder) / task.cell.id
    flag = StopFlag()

    def should_stop() -> bool:
        if lease is not None:
            lease.check()
        if stop.reason is not None:
            flag.set(stop.reason)
        return flag.is_set()

    lease = None if leader is None else leader.start()
    began, wall_began = time.monotonic(), time.time()
    done: dict[str, Any] = {}
    failure: Exception | None = None
    with contextlib.ExitStack() as stack:
        if leader is not None:
            look = functools.partial(leader.look_at_marks, task.cell.id, flag)
            stack.enter_context(repeating(look, every_s=leader.store.poll_s, name="marks"))
        if spec.log:
            stack.enter_context(logged(folder, hosts.index))
        try:
            done = import_entry(spec.entry)(
                task.cell,
                task.execution,
                folder=folder,
                group=spec.group,
                run_name=task.run_name,
                should_stop=should_stop,
            )
            outcome: Outcome = "diverged" if done["status"] == "diverged" else "done"
            error = None
        except Exception as raised:
            if type(raised).__name__ == "Stopped":  # on all processes, at the same step
                hosts.share(flag)
                outcome, error = flag.reason or "stopped", None
                if outcome in ("preempted", "stopped"):
                    stop.set(outcome)
            else:
                failure = raised
                outcome, error = classify(raised, folder)
                if hosts.count > 1 and outcome == "raised":
                    outcome, error = blame(raised, error, folder, since=wall_began)
                if leader is None or leader.owns_cell():
                    record_failure(folder, raised, outcome, error, since=wall_began)
    if leader is not None:
        leader.finish(outcome, error, done, time.monotonic() - began)
    if failure is not None and hosts.count > 1:
        raise failure  # the other processes may be waiting for this one
    return outcome, error


def import_entry(entry: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = entry.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
