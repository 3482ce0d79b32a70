"""Shows a sweep while it runs, from its records: a line for each event, and how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sweeps.runner.attempts import LOST, PREEMPTED, RAISED
from sweeps.runner.cell_status import CellStatus, StudyState, work
from sweeps.runner.display import Now, Report, duration, headline, percent
from sweeps.runner.machines import is_local, machine_of
from sweeps.runner.remaining import Remaining
from sweeps.study import Study

_ESTIMATE_S = 2.0  # between two estimates of the time left


class SweepProgress:
    """Reports what happens to the cells of a study, whoever trains them.

    What had happened before the first `tick` is not reported.

    Arguments:
      root: of the records.
    """

    def __init__(self, study: Study, root: Path, report: Report):
        self._study, self._report = study, report
        self._state = StudyState(study.cells, study.folder(root))
        self._machines = {c.id: machine_of(study.execution_of(c)) for c in study.cells}
        self._weights = {c.id: work(study, c) / c.examples for c in study.cells}
        self._target = sum(work(study, c) for c in study.cells)
        self._remaining = Remaining(study)
        self._before: dict[str, CellStatus] = {}
        self._estimated = float("-inf")
        self._seconds_left: float | None = None

    def tick(self, workers: Mapping[str, int]) -> list[CellStatus]:
        """Reads the records once and reports what has changed.

        Arguments:
          workers: the number of workers by the type of their machine.

        Returns:
          The statuses of all cells, in the order of the study.
        """
        statuses = self._state.refresh()
        if self._before:
            finished = sum(s.finished for s in self._before.values())
            for status in statuses:
                if status is not self._before[status.cell.id]:
                    finished = self._report_changes(status, finished)
        self._before = {s.cell.id: s for s in statuses}
        self._report.progress(self._now(statuses, workers))
        return statuses

    def _report_changes(self, status: CellStatus, finished: int) -> int:
        """Reports the events of one cell; returns the number of finished cells after it."""
        before, cell_id = self._before[status.cell.id], status.cell.id
        for index in range(_ended(before), _ended(status)):
            if line := _attempt_line(index, status):
                self._report.line(f"{cell_id}: {line}")
        if status.state == before.state:
            return finished
        if status.finished:
            finished += 1
            took = ""
            if status.attempts.all and (ended := status.progress.time) is not None:
                took = f" in {duration(max(0.0, ended - status.attempts.all[-1].claimed))}"
            line = f"{cell_id} {status.state}{took}  {headline(status.done)}".rstrip()
            self._report.line(f"[{finished}/{len(self._study.cells)}] {line}")
        elif status.state == "failed":
            self._report.line(f"{cell_id} failed: {status.error}")
        elif status.state == "cancelled":
            self._report.line(f"{cell_id} cancelled at {percent(status)}")
        return finished

    def _now(self, statuses: list[CellStatus], workers: Mapping[str, int]) -> Now:
        if time.monotonic() - self._estimated >= _ESTIMATE_S:
            self._estimated = time.monotonic()
            self._seconds_left = self._remaining.seconds(statuses, workers=workers)
        return Now(
            study=self._study.name,
            cells=len(statuses),
            finished=sum(s.finished for s in statuses),
            failed=sum(s.state == "failed" for s in statuses),
            waiting=Counter(
                machine
                for s in statuses
                if s.state in ("interrupted", "pending")
                and not is_local(machine := self._machines[s.cell.id])
            ),
            done=sum(
                # A finished cell counts whole, also one that diverged.
                (s.cell.examples if s.finished else s.progress.examples_seen)
                * self._weights[s.cell.id]
                for s in statuses
            ),
            target=self._target,
            seconds_left=self._seconds_left,
            running=[s for s in statuses if s.state == "running"],
            machines=self._machines,
        )


def _ended(status: CellStatus) -> int:
    """How many of its attempts have ended."""
    return sum(a.outcome is not None for a in status.attempts.all)


def _attempt_line(index: int, status: CellStatus) -> str:
    """What to report about an attempt that has ended; "" of an ordinary end."""
    attempt = status.attempts.all[index]
    later = status.attempts.all[index + 1 :]
    step = later[0].step if later else status.progress.step
    again = f"; it continues from {step / status.cell.steps:.0%}"
    if status.state == "failed" and not later:
        again = ""
    match attempt.outcome:
        case "raised":
            counted = status.attempts.all[status.attempts.cleared : index + 1]
            number = sum(a.outcome == "raised" for a in counted)
            return f"attempt {number} of {RAISED} failed: {attempt.error}"
        case "lost":
            reason = f" ({attempt.error})" if attempt.error else ""
            return f"its worker died{reason}{again} (at most {LOST} times without progress)"
        case "preempted":
            return f"preempted{again} (at most {PREEMPTED} times without progress)"
        case "no space":
            return f"its worker ran out of disk space: {attempt.error}"
    return ""
