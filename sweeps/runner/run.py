"""Runs the cells of a study on Ray until every one is over. All state is in the records.

What happens to a cell whose worker dies, or that raises, is in `sweeps.runner.job_queue`; bad input
is not tried again, and a full disk ends the sweep. When Ray itself dies it is started again.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.config import Execution
from study.config.host import cores
from study.records.mounts import refuse_mounted_bucket
from study.records.record import RecordError
from study.records.storage import listdir, mkdir, resolve, rmtree
from sweeps.ray_cluster.local import check_address
from sweeps.runner import cell_status as ledger
from sweeps.runner import compile_cache as compiled
from sweeps.runner.capacity import LOCAL
from sweeps.runner.display import ProgressLine, Report, Silent
from sweeps.runner.driver import Sweep
from sweeps.runner.lease_file import DRIVER, LEASE, holder_of
from sweeps.runner.placing import kinds
from sweeps.runner.signals import INTERRUPTED, Stop
from sweeps.runner.worker import TRAIN, load
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
    states: dict[ledger.State, int]
    ran: tuple[str, ...] = ()
    parallel: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    examples: int = 0


def run(
    study: Study,
    root: str | Path = "runs",
    *,
    parallel: int | None = None,
    caps: Mapping[str, int] | None = None,
    at_once: int | None = None,
    first: Sequence[str] = (),
    address: str | None = None,
    entry: str | Callable[..., Any] = TRAIN,
    report: Report | None = None,
    backoff: float = 1.0,
) -> Result:
    """Brings every cell of `study` to its end; cells that are over are not entered again.

    Arguments:
      root: the folder of all records; those of this study go to `study.folder(root)`.
      parallel: local cells at a time; None: as many as this process may use cores.
      caps: cells at a time by kind of machine; what is not named may fill the cluster.
      at_once: cells at a time of all kinds together.
      first: ids of cells that start before the others of their kind, in this order.
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
    root = resolve(root).absolute()
    refuse_mounted_bucket(root)
    machines = kinds(study)
    before = ledger.read(study, root)
    if not any(e.to_run for e in before):
        return Result(study=study.name, exit_code=0, states=ledger.count(before))
    _placeable([machines[e.cell.id] for e in before if e.to_run], study, address)
    if callable(entry):
        entry = f"{entry.__module__}:{entry.__qualname__}"
    began = time.monotonic()
    with Stop() as stop:
        sweep = Sweep(
            study,
            root,
            before,
            kinds=machines,
            stop=stop,
            report=report,
            entry=entry,
            backoff=backoff,
            first=first,
        )
        try:
            stop.raises = True
            _make_folder(study.folder(root))
            if address is not None:
                check_address(address)
            prepare(study, report)
            keep_programs(report)
            sweep.on_ray(parallel or cores(), caps or {}, at_once, address)
        except KeyboardInterrupt:
            stop.asked = True
    after = ledger.read(study, root)
    ran = [e for e in after if e.over and e.cell.id in sweep.ended]
    trained_before = {e.cell.id: e.progress.examples_seen for e in before}
    stopped = stop.asked and any(e.to_run for e in after)
    return Result(
        study=study.name,
        exit_code=INTERRUPTED if stopped else min(1, ledger.exit_code(after)),
        states=ledger.count(after),
        ran=tuple(e.cell.id for e in ran),
        parallel=sweep.parallel,
        seconds=time.monotonic() - began,
        train_seconds=sum(_trained(e, study.execution_of(e.cell), sweep.parallel) for e in ran),
        examples=sum(e.progress.examples_seen - trained_before[e.cell.id] for e in ran),
    )


def _trained(entry: ledger.Entry, execution: Execution, parallel: int) -> float:
    """Seconds of all its cores together that a cell spent in training steps."""
    seconds: float = entry.done.get("seconds", {}).get("train", 0.0)
    return seconds * min(execution.cores, max(1, parallel))


def prepare(study: Study, report: Report) -> None:
    """Makes what is missing of the study's data; says so if that takes more than a moment."""
    if study.prepare is None:
        return
    make = load(study.prepare) if isinstance(study.prepare, str) else study.prepare
    data_root = Path(study.data_root).absolute()
    said = f"preparing the data of {study.name} under {data_root} (what is missing is made once)"
    slow = threading.Timer(1.0, report.line, [said])
    slow.start()
    try:
        takes = inspect.signature(make).parameters
        more = {"cells": study.cells} if "cells" in takes else {}
        if "progress" in takes:
            with ProgressLine() as steps:
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


def _make_folder(folder: Path) -> None:
    try:
        mkdir(folder)
    except OSError as error:
        said = error.strerror or error
        raise RecordError(f"cannot write {folder}: {said}; choose another --root") from None
    for left in listdir(folder):  # by drivers that were killed
        if left.name.startswith(DRIVER) and holder_of(left / LEASE) is None:
            rmtree(left)


def _placeable(kinds: Sequence[str], study: Study, address: str | None) -> None:
    """A cluster of our own is this machine: it has no slices to wait for."""
    wanted = sorted({kind for kind in kinds if kind != LOCAL})
    if wanted and address is None:
        raise StudyError(
            f"study {study.name} wants {', '.join(wanted)}, and a cluster started here has none; "
            "join one with --address HOST:PORT (`study cluster fake` starts one to try it), or "
            "run it here with --set execution.slice=null"
        )
