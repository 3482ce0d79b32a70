"""Runs the unfinished cells of a study. All state is in the records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.records.mounts import refuse_mounted_bucket
from study.records.storage import resolve
from sweeps.runner import cell_status
from sweeps.runner.display import Report, Silent
from sweeps.runner.machines import LOCAL, is_local, machines
from sweeps.runner.prepare import keep_programs, prepare
from sweeps.runner.signals import INTERRUPTED, Stop, StopFlag
from sweeps.runner.worker import work
from sweeps.runner.worker_spec import TRAIN, worker_spec
from sweeps.study import Study, StudyError


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a sweep ended.

    Attributes:
      exit_code: 0 all cells over, 1 some failed, 130 interrupted.
      states: cells of the study per state.
      ran: ids of the cells that this sweep brought to their end.
      parallel: cells at a time.
      seconds: wall time, the start of Ray included.
      train_seconds: that cores spent in training steps, summed over `ran`.
      examples: that this sweep trained on, summed over `ran`.
    """

    study: str
    exit_code: int
    states: dict[cell_status.State, int]
    ran: tuple[str, ...] = ()
    parallel: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    examples: int = 0


def run(
    study: Study,
    root: str | Path = "runs",
    *,
    workers: Mapping[str, int] | None = None,
    first: Sequence[str] = (),
    address: str | None = None,
    entry: str | Callable[..., Any] = TRAIN,
    report: Report | None = None,
    backoff: float = 1.0,
) -> Result:
    """Trains the unfinished cells of `study` in this process, until workers start through Ray."""
    del workers, address
    report = report or Silent()
    root = resolve(root).absolute()
    refuse_mounted_bucket(root)
    before = cell_status.read(study, root)
    if not any(s.runnable for s in before):
        return Result(study=study.name, exit_code=0, states=cell_status.count(before))
    if not all(is_local(machine) for machine in machines(study).values()):
        raise StudyError("no slices yet")
    if callable(entry):
        entry = f"{entry.__module__}:{entry.__qualname__}"
    began = time.monotonic()
    flag = StopFlag()
    with Stop(flag) as stop:
        prepare(study, report)
        keep_programs(report)
        spec = worker_spec(
            study, study.folder(root), LOCAL, first=first, entry=entry, backoff_s=backoff
        )
        result = work(spec, stop=flag, report=report.line)
    after = cell_status.read(study, root)
    ended = {id for id, outcome in result.outcomes.items() if outcome in ("done", "diverged")}
    code = INTERRUPTED if stop.asked else min(1, cell_status.exit_code(after))
    return Result(
        study=study.name,
        exit_code=code,
        states=cell_status.count(after),
        ran=tuple(ended),
        parallel=1,
        seconds=time.monotonic() - began,
        train_seconds=sum(s.done["seconds"]["train"] for s in after if s.cell.id in ended),
        examples=sum(s.cell.examples for s in after if s.cell.id in ended),
    )
