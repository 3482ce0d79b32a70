"""`study run` and `study train`: from a study to a sweep and a line on how it went."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import threading
import time
import warnings
from dataclasses import asdict
from pathlib import Path

from study.config.cell import Cell
from study.config.host import cores
from study.records.mounts import refuse_mounted_bucket
from study.records.storage import resolve
from study.records.wandb_mirror import wandb_mode, why_offline
from sweeps.cli.table import table
from sweeps.runner import cell_status as ledger
from sweeps.runner import run as runner
from sweeps.runner.capacity import LOCAL
from sweeps.runner.display import Now, Report, Running, duration, headline, percent, rate, report_on
from sweeps.runner.job_queue import in_order, priorities
from sweeps.runner.placing import caps, kinds
from sweeps.runner.signals import INTERRUPTED, Stop
from sweeps.selection import matching_ids
from sweeps.study import Study, StudyError


def run(
    study: Study,
    root: str,
    *,
    parallel: int | None,
    max_parallel: list[str],
    first: list[str],
    address: str | None,
    as_json: bool,
) -> int:
    """Runs the study; returns the exit code."""
    by_kind, at_once = caps(max_parallel)
    out = sys.stderr if as_json else sys.stdout
    if address is None and os.environ.get("RAY_ADDRESS"):
        print("RAY_ADDRESS is set and ignored; --address joins a running cluster", file=out)
    if wandb_mode() == "online" and (why := why_offline()) is not None:
        print(f"wandb: {why}", file=out)  # workers say it too, where nobody looks
    report = report_on(out)
    result = runner.run(
        study,
        root,
        parallel=by_kind.pop(LOCAL, parallel or cores()),
        caps=by_kind,
        at_once=at_once,
        first=matching_ids(study, first),
        address=address,
        report=report,
    )
    if as_json:
        print(json.dumps(asdict(result), indent=1))
    else:
        print(_summary(result, on_cores=set(kinds(study).values()) == {LOCAL}))
    if result.exit_code == INTERRUPTED:
        print(f"interrupted; to go on: {_again()}", file=out)
    elif result.exit_code == 1:
        print(
            f"why cells failed is in FAILED.json of their folders in "
            f"{study.folder(resolve(root))}; to try them again: {_again()}",
            file=out,
        )
    return result.exit_code


def without_done(study: Study, snapshot: str) -> Study | None:
    """The study without the cells that are done in a snapshot; None where no cell is left.

    Raises:
      AnalysisError: it is none, or was changed.
    """
    from analysis.records.frame import open_snapshot

    known = open_snapshot(snapshot)
    there = known.records(study.group) if study.group in known.studies() else []
    done = {record.id for record in there if record.done}
    left = tuple(cell for cell in study.cells if cell.id not in done)
    return dataclasses.replace(study, cells=left) if left else None


def dry_run(study: Study, root: str, *, first: list[str], as_json: bool) -> int:
    """Shows what `run` would do, the cells in the order in which they would start."""
    machines = kinds(study)
    entries = ledger.read(study, resolve(root).absolute())
    left = in_order(entries, priorities(study, matching_ids(study, first)), machines)
    if as_json:
        cells = [
            {
                "id": e.cell.id,
                "state": e.state,
                "steps": e.cell.steps,
                "slice": machines[e.cell.id],
            }
            for e in left
        ]
        states = ledger.count(entries)
        print(json.dumps({"study": study.name, "states": states, "to_run": cells}, indent=1))
        return 0
    rows = [
        (e.cell.id, e.state, percent(e), str(e.cell.batch_size), f"{e.cell.steps:,}",
         f"{e.cell.examples:,}", machines[e.cell.id])
        for e in left
    ]  # fmt: skip
    if rows:
        head = ("cell", "state", "seen", "batch size", "steps", "examples", "machine")
        print(table(head, rows, right={2, 3, 4, 5}))
    cancelled = sum(e.state == "cancelled" for e in entries)
    more = f", {cancelled} cancelled" if cancelled else ""
    print(f"{len(left)} cells to run, {sum(e.over for e in entries)} over{more}")
    return 0


def train(study: Study, cell: Cell, root: str) -> int:
    """Trains one cell in this process, as a worker of a sweep would; returns the exit code."""
    from sweeps.ray_cluster.local import environment
    from sweeps.runner.worker import run_here

    folder = study.folder(resolve(root).absolute()) / cell.id
    refuse_mounted_bucket(folder)
    entry = ledger.entry(cell, folder)
    report = report_on(sys.stdout)
    if entry.over:
        print(f"{cell.id} is {entry.state}  {headline(entry)}".rstrip())
        return 0
    wanted = min(study.execution_of(cell).cores, cores())
    os.environ.update(environment(cores=wanted))  # before JAX is imported
    # `keep_programs` says it once, JAX for every program and beside the progress
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    with Stop() as stop:
        stop.raises = True
        try:
            runner.prepare(dataclasses.replace(study, cells=(cell,)), report)
            runner.keep_programs(report)
        except KeyboardInterrupt:
            print(f"interrupted; to go on: {_again()}")
            return INTERRUPTED
        stop.raises = False
        began = time.monotonic()
        with _Watched(study, cell, folder, report, stop):
            outcome = run_here(
                cell,
                study.execution_of(cell),
                folder=folder,
                group=study.group,
                run_name=study.run_names[cell.id],
                should_stop=stop.is_asked,
            )
    entry = ledger.entry(cell, folder)
    match outcome.end:
        case "done" | "diverged":
            took = duration(time.monotonic() - began)
            print(f"{cell.id} {entry.state} in {took}  {headline(entry)}".rstrip())
            return 0
        case "stopped":
            print(f"saved at {percent(entry)}; to go on: {_again()}")
            return INTERRUPTED
        case "failed":
            print(f"{cell.id} failed: {outcome.error}", file=sys.stderr)
            print(f"the traceback is in {folder / 'FAILED.json'}", file=sys.stderr)
            return 1
    raise StudyError(outcome.error or outcome.end)


class _Watched:
    """Shows a cell's progress from its record while the block trains it, and that it was heard."""

    def __init__(self, study: Study, cell: Cell, folder: Path, report: Report, stop: Stop):
        self.study, self.cell, self.folder, self.report = study, cell, folder, report
        self.stop, self._heard = stop, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="progress", daemon=True)

    def _look(self) -> None:
        began = time.monotonic()
        while not self._over.wait(max(0.5, self.report.every)):
            if self.stop.asked and not self._heard:
                self._heard = True  # it may be compiling, and stop in a minute
                self.report.line("stopping: it saves what it has (Ctrl-C again quits at once)")
            entry = ledger.entry(self.cell, self.folder)
            seen = entry.progress
            self.report.progress(
                Now(
                    study=self.study.name,
                    cells=1,
                    over=0,
                    failed=0,
                    done=seen.examples_seen,
                    target=self.cell.examples,
                    seconds_left=entry.seconds_left,
                    running=[
                        Running(
                            entry=entry,
                            seconds=time.monotonic() - began,
                            attempt=seen.attempts,
                        )
                    ],
                )
            )

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.report.close()


def _summary(result: runner.Result, *, on_cores: bool) -> str:
    """One line; how busy the cores were is said where no cell ran on a slice."""
    states = ", ".join(f"{n} {state}" for state, n in result.states.items())
    if not result.parallel:
        idle = "" if result.exit_code == INTERRUPTED else "nothing to run: "
        return f"{result.study}: {idle}{states}"
    text = f"{result.study}: {states}; {len(result.ran)} cells in {duration(result.seconds)}"
    if on_cores and result.ran and result.train_seconds:
        share = result.train_seconds / (result.seconds * result.parallel)
        pace = rate(result.examples / result.seconds / result.parallel)
        text += (
            f" on {result.parallel} cores, {share:.0%} of them in training steps; {pace} per core"
        )
    return text


def _again() -> str:
    return shlex.join(["study", *sys.argv[1:]])
