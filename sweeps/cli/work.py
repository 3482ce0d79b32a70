"""`study work`: one worker, without Ray."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from sweeps.cli.options import (
    Data,
    DecodeWorkers,
    ExecutionFile,
    Only,
    Root,
    Set,
    StudyName,
    root_of,
    study_of,
)
from sweeps.cli.run import this_command

EXIT_CODES = {"finished": 0, "idle": 0, "stopped": 130, "preempted": 3, "no space": 1, "failed": 1}


def work(
    name: StudyName,
    root: Root = "runs",
    data: Data = None,
    machine: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            show_default="TPU_ACCELERATOR_TYPE, or local",
            help="Type of this machine, such as v4-32: train the cells that ask for it.",
        ),
    ] = None,
    max_idle: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0,
            show_default="10 on slices, else no limit",
            help="End after waiting this long for cells that others hold.",
        ),
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Address of process 0, for several hosts."),
    ] = None,
    process_count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes of this worker.")
    ] = None,
    process_id: Annotated[
        int | None, typer.Option(metavar="K", min=0, help="Index of this process, from 0.")
    ] = None,
    only: Only = None,
    settings: Set = None,
    execution: ExecutionFile = None,
    decode_workers: DecodeWorkers = None,
) -> int:
    """Train cells on this machine until none is left (no Ray).

    Start as many workers as there are machines, in any way: they share the study through its
    records. On a machine of several hosts start the same command on each. JAX finds the other hosts
    by itself on TPU slices, GKE and Slurm; elsewhere give --coordinator, --process-count and
    --process-id. Ctrl-C or SIGTERM saves the cell and ends the worker; a second Ctrl-C quits at
    once.
    """
    from study.config.host import cores
    from study.records.mounts import refuse_mounted_bucket
    from study.records.storage import resolve
    from sweeps.ray_cluster.env import environment, gang_environment
    from sweeps.runner import cell_status
    from sweeps.runner.display import Lines
    from sweeps.runner.machines import cores_of, hosts_of, is_local, parse_machine
    from sweeps.runner.prepare import prepare, set_environment
    from sweeps.runner.signals import INTERRUPTED, Stop
    from sweeps.runner.worker import work
    from sweeps.runner.worker_spec import missing_data, worker_spec
    from sweeps.study import StudyError

    study = study_of(name, data, settings, only, execution, decode_workers=decode_workers)
    machine = parse_machine(machine or os.environ.get("TPU_ACCELERATOR_TYPE") or "local")
    folder = study.folder(resolve(root_of(root)).absolute())
    refuse_mounted_bucket(folder)
    addressing = (coordinator, process_count, process_id)
    if any(a is not None for a in addressing) and None in addressing:
        raise StudyError("give --coordinator, --process-count and --process-id together, or none")
    several = coordinator is not None or hosts_of(machine) > 1
    fields: dict[str, Any] = {} if max_idle is None else {"max_idle_s": 60 * max_idle}
    spec = worker_spec(study, folder, machine, **fields)

    # Before JAX is imported. What a slice has is for its hosts to say.
    local = is_local(machine)
    if local and cores_of(machine) > cores():
        raise StudyError(f"--machine {machine}: this machine has {cores()} cores")
    set_environment(environment(cores=cores_of(machine)) if local else gang_environment())
    # A cell's output goes to its log, and this worker's lines to where its output went before.
    report = Lines(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    if several:
        from study.training.multihost import join, leave
    with Stop() as stop:
        stop.raises = True
        try:
            prepare(study, report)
            if problem := missing_data(spec):
                raise StudyError(problem)
            if several:
                join(coordinator, process_count, process_id)
                stop.listen()  # JAX has a handler of SIGTERM of its own
        except KeyboardInterrupt:
            report.line(f"interrupted; to continue: {this_command()}")
            return INTERRUPTED
        stop.raises = False
        try:
            result = work(spec, stop=stop.flag, report=report.line)
        except Exception as error:
            if not several:
                raise
            _quit(error)
        if several:
            leave()
    mine = {task.cell.id for task in spec.tasks}
    statuses = [s for s in cell_status.read(study, folder.parent) if s.cell.id in mine]
    counts = ", ".join(f"{n} {state}" for state, n in cell_status.count(statuses).items())
    report.line(f"{study.name}: {counts}; this worker made {len(result.outcomes)} of them")
    if result.error:
        print(f"study: {result.error}", file=sys.stderr)
    if result.end in ("stopped", "preempted"):
        report.line(f"saved; to continue: {this_command()}")
    if result.end == "finished":
        return cell_status.exit_code(statuses)
    return EXIT_CODES[result.end]


def _quit(error: Exception) -> NoReturn:
    """Ends this process at once, and so the worker's others, which may be waiting for it.

    An orderly exit would wait for them: JAX's processes leave together.
    """
    from study.records.redact import redact
    from study.records.storage import format_error

    message = redact(format_error(error, max_chars=300))
    print(
        f"study: this worker's processes cannot go on ({message}); what is recorded is kept: "
        "start all of them again",
        file=sys.stderr,
        flush=True,
    )
    os._exit(3)  # cells are left: whoever started the worker may start it again
