"""What a worker is told: which cells its machine can train, and where their records are."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.config import Cell, Execution
from study.data.files import absolute, exists, to_path
from sweeps.runner.claims import Rank, ranks
from sweeps.runner.machines import LOCAL, is_local, machine_of
from sweeps.study import Study, StudyError

TRAIN = "study.training.loop:train"
MAX_IDLE_S = 600.0  # that a worker on a slice waits for cells that others hold


@dataclass(frozen=True, kw_only=True)
class CellTask:
    """One cell that a worker may train."""

    cell: Cell
    execution: Execution
    run_name: str | None = None
    rank: Rank = field(default_factory=Rank)


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What a worker needs to know; it can be pickled."""

    tasks: tuple[CellTask, ...]  # the cells that its machine can train
    folder: str  # of the study's records
    group: str  # the name of that folder, and wandb's group
    machine: str = LOCAL  # its type
    run_id: str | None = None  # of the `study run` whose stop mark it obeys
    entry: str = TRAIN  # "module:function" that trains, called as `study.training.loop.train` is
    # How long it waits while others hold all cells that are left; None: until they are finished.
    max_idle_s: float | None = None
    log: bool = True  # whether what a cell prints goes to its log
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}")


def missing_data(spec: WorkerSpec) -> str | None:
    """Which data set this host lacks, in one line; None if it has all of them.

    A worker that began without them would fail one cell after another.
    """
    if spec.entry != TRAIN:
        return None
    folders = {
        to_path(t.execution.data_root) / name for t in spec.tasks for name in t.cell.data.datasets
    }
    for folder in sorted(folders):
        if not exists(folder / "dataset.json"):
            return (
                f"{socket.gethostname()} has no data set at {folder}: every host reads it from the "
                "same path; copy or mount it there, or give --data"
            )
    return None


def worker_spec(
    study: Study, folder: Path, machine: str, *, first: Sequence[str] = (), **fields: Any
) -> WorkerSpec:
    """The specification of a worker on `machine`.

    Arguments:
      folder: of the study's records.
      first: ids of cells that start before the others, in this order.
      fields: others of `WorkerSpec`.

    Raises:
      StudyError: no cell of the study runs on this machine.
    """
    order = ranks(study, first)
    data_root = absolute(study.data_root)
    by_machine: dict[str, list[CellTask]] = {}
    for cell in study.cells:
        execution = study.execution_of(cell)
        task = CellTask(
            cell=cell,
            execution=dataclasses.replace(execution, data_root=data_root),
            run_name=study.run_names[cell.id],
            rank=order[cell.id],
        )
        by_machine.setdefault(machine_of(execution), []).append(task)
    if machine not in by_machine:
        setting = "execution.slice=null" if is_local(machine) else f"execution.slice={machine}"
        raise StudyError(
            f"no cell of {study.name} runs on {machine}: its cells are for "
            f"{', '.join(sorted(by_machine))}; give --machine, or --set {setting}"
        )
    fields = {"max_idle_s": None if is_local(machine) else MAX_IDLE_S, **fields}
    return WorkerSpec(
        tasks=tuple(by_machine[machine]),
        folder=str(folder),
        group=study.group,
        machine=machine,
        **fields,
    )
