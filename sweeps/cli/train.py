"""`study train`: train one cell in this process, without Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import (
    CellName,
    Data,
    DecodeWorkers,
    ExecutionFile,
    Root,
    Set,
    StudyName,
    local,
    root_of,
    study_of,
)
from sweeps.cli.run import this_command

if TYPE_CHECKING:
    from sweeps.runner.cell_status import CellStatus
    from sweeps.runner.display import Report
    from sweeps.runner.signals import Stop
    from sweeps.study import Study


def train(
    name: StudyName,
    cell: CellName,
    root: Root = "runs",
    data: Data = None,
    settings: Set = None,
    execution: ExecutionFile = None,
    decode_workers: DecodeWorkers = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="DIR",
            callback=local,
            help="Write a jax.profiler trace of a few steps to this folder.",
        ),
    ] = None,
) -> int:
    """Train one cell in this process, without Ray."""
    from study.config.host import cores
    from study.records.mounts import refuse_mounted_bucket
    from study.records.storage import resolve
    from sweeps.ray_cluster.env import environment
    from sweeps.runner import cell_status
    from sweeps.runner.display import headline, percent, report_on
    from sweeps.runner.machines import machine_of
    from sweeps.runner.prepare import prepare, set_environment
    from sweeps.runner.signals import INTERRUPTED, Stop
    from sweeps.runner.worker import train_once
    from sweeps.runner.worker_spec import worker_spec
    from sweeps.study import StudyError

    if profile is not None:
        settings = [*(settings or []), f"execution.profile={json.dumps(profile)}"]
    study = study_of(name, data, settings, None, execution, decode_workers=decode_workers)
    chosen = study.cell(cell)
    study = dataclasses.replace(study, cells=(chosen,), matched=())
    folder = study.folder(resolve(root_of(root)).absolute())
    refuse_mounted_bucket(folder)
    status = cell_status.read_cell(chosen, folder / chosen.id)
    report = report_on(sys.stdout)
    if profile is not None:
        _check_profile(profile, status)
    if status.finished:
        print(f"{chosen.id} is {status.state}  {headline(status.done)}".rstrip())
        return 0
    how = study.execution_of(chosen)
    set_environment(environment(cores=min(how.cores, cores())))
    with Stop() as stop:
        stop.raises = True
        try:
            prepare(study, report)
        except KeyboardInterrupt:
            print(f"interrupted; to continue: {this_command()}")
            return INTERRUPTED
        stop.raises = False
        spec = worker_spec(study, folder, machine_of(how), log=False)
        with _show_progress(study, status, report, stop):
            outcome, error = train_once(spec, stop=stop.flag, report=report.line)
    if profile is not None and (Path(profile) / chosen.id).is_dir():
        print(f"trace: {Path(profile) / chosen.id} (TensorBoard, or ui.perfetto.dev)")
    match outcome:
        case "done" | "diverged":
            return 0
        case "stopped" | "preempted" | "cancelled":
            status = cell_status.read_cell(chosen, folder / chosen.id)
            print(f"saved at {percent(status)}; to continue: {this_command()}")
            return INTERRUPTED
        case "raised":
            print(f"the traceback is in {folder / chosen.id / 'FAILED.json'}", file=sys.stderr)
            return 1
    raise StudyError(error or outcome)


def _check_profile(folder: str, status: CellStatus) -> None:
    """Refuse a folder that cannot hold a trace, and a cell that has no step left to trace."""
    from sweeps.study import StudyError

    if status.finished:
        raise StudyError(
            f"--profile: {status.cell.id} is {status.state}, so no step is left to trace; give "
            "another --root"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise StudyError(
            f"--profile {folder}: cannot write there ({reason}); give a folder"
        ) from None


@contextlib.contextmanager
def _show_progress(study: Study, status: CellStatus, report: Report, stop: Stop) -> Iterator[None]:
    """Reports the cell's progress, read from its record, while the block trains it."""
    from sweeps.runner import cell_status
    from sweeps.runner.display import Now
    from sweeps.runner.repeating import repeating

    cell, folder, acknowledged = status.cell, status.folder, False

    def show() -> None:
        nonlocal acknowledged
        if stop.asked and not acknowledged:
            acknowledged = True  # at once: a compilation may delay the stop by a minute
            report.line("stopping: the cell saves its state (Ctrl-C again quits at once)")
        now = cell_status.read_cell(cell, folder)
        report.progress(
            Now(
                study=study.name,
                cells=1,
                finished=0,
                failed=0,
                done=now.progress.examples_seen,
                target=cell.examples,
                seconds_left=now.seconds_left,
                running=[now],
            )
        )

    looks = repeating(show, every_s=max(0.5, report.every), name="progress")
    with contextlib.closing(report), looks:
        yield
