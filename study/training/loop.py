"""Trains one cell from start to DONE, or goes on from its last checkpoint.

    done = train(cell, Execution(), folder=Path("runs/demo") / cell.id, group="demo")

Every process of a multi-host run calls `train`; process 0 alone writes the record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from study.config import Cell, Execution, to_dict
from study.config.budget import schedule_points
from study.config.schedule import schedule
from study.data.corruption import make_read_fn
from study.data.formats.dataset import open_dataset
from study.data.tokenizer import Tokenizer
from study.evals import Evaluator
from study.models.sharding import check_layout, make_mesh
from study.records.provenance import code_version, library_versions
from study.records.record import CELL, Progress, Record, read_json
from study.records.storage import format_error
from study.records.wandb_mirror import WandbMirror
from study.training.branch import start_branch
from study.training.checkpoint import Checkpoints
from study.training.compile import TrainProgram, compile_loop, train_program
from study.training.init_from import init_from_checkpoint
from study.training.loader import REPLACED, TrainLoader
from study.training.memory import PeakMemory, peak_bytes
from study.training.multihost import Agreement, raise_together
from study.training.profile import Profile, limit_chunks
from study.training.step import Metrics, State, read_numbers
from study.training.throughput import Meter, Stopwatch


class Stopped(Exception):
    """The run was asked to stop and has saved a checkpoint; `train` again goes on from there."""


def train(
    cell: Cell,
    execution: Execution,
    *,
    folder: Path,
    group: str,
    run_name: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train `cell` into the record `folder`; returns the content of its DONE.json.

    A cell that is done is not trained again. One that was interrupted goes on from its last
    checkpoint and ends with the same numbers, bit for bit on CPU, as an uninterrupted one.

    Arguments:
      folder: `<root>/<group>/<cell id>`.
      group: the folder of the study's records, and wandb's group.
      run_name: the name of the run in wandb; None is the cell's id.
      should_stop: called after each call of the compiled loop. If it raises, because another
        worker may own the record by now, nothing more is written to it.

    Raises:
      Stopped: `should_stop` returned True on any process; a checkpoint is saved.
      CellError, DataError, RecordError: bad input, in one line with a remedy.
    """
    record = Record(folder)
    if (done := record.done) is not None:
        return done
    stopwatch = Stopwatch("open", "compile", "eval", "checkpoint")
    with contextlib.ExitStack() as stack:
        with stopwatch.time("open"):
            execution = limit_chunks(cell, execution)
            parts = _open(cell, execution, record, group, run_name or cell.id, stack)
        return _run(parts, stopwatch, should_stop)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """All that an attempt at a cell needs. state: that it starts or resumes from."""

    cell: Cell
    execution: Execution
    loader: TrainLoader
    program: TrainProgram
    checkpoints: Checkpoints
    state: State
    evaluator: Evaluator
    meter: Meter
    profile: Profile
    log: _Log


def _run(parts: _Parts, stopwatch: Stopwatch, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Train from `parts.state` to the end of the run; returns the content of DONE.json."""
    cell, execution, loader = parts.cell, parts.execution, parts.loader
    meter, log, checkpoints, evaluator = parts.meter, parts.log, parts.checkpoints, parts.evaluator
    log_at = set(schedule_points(execution.log_every_percent, cell.steps))
    save_at = execution.kept_steps(cell.steps)
    due = log_at | save_at | evaluator.steps
    state, status = parts.state, "done"
    step = logged = int(state.step)
    saved = time.monotonic()
    executable = previous = memory = None
    agreement = Agreement()
    numbers, factor = read_numbers(cell), schedule(cell)
    chunk_steps = parts.program.chunk_steps

    for batches, begin, end, _ in loader.steps(step, due, chunk_steps):
        meter.batch_ready()
        if executable is None:  # here, so that the next batches are read meanwhile
            with stopwatch.time("compile"):
                executable, microbatch = compile_loop(parts.program, execution)
            if microbatch is not None:
                log.summary["execution/microbatch"] = microbatch
            peak = PeakMemory(state)
            meter.resume()
        parts.profile.before_chunk(previous)
        first_of_interval = np.bool_(step in log_at)
        factor_S = factor(step - begin + np.arange(chunk_steps))
        state, metrics = executable(
            state, batches, np.int32(begin), np.int32(end), first_of_interval, numbers, factor_S
        )
        meter.dispatched(metrics)
        if previous is None:
            jax.block_until_ready(metrics)
            log.event(step + end - begin, "training")
        # The host may be one call ahead, or it would fill the devices with batches.
        jax.block_until_ready(previous)
        loader.prefetch()
        previous = metrics
        step += end - begin

        since_saved = time.monotonic() - saved
        save_now = log.primary and since_saved >= 60 * execution.checkpoint_every_minutes
        try:
            stop_now = should_stop()
        except BaseException:
            log.discard()
            raise
        if not agreement.due(now=step in due):
            continue
        if jax.process_count() > 1:
            # Two programs at a time on CPUs can mix up their messages, so finish the step first.
            # On other devices the exchange waits for the step in any case.
            jax.block_until_ready(state)
        stopping, saving = agreement.exchange(stop_now, save_now)
        saving = saving or stopping or step in save_at
        if stopping and step < cell.steps:
            log.mirror.preempting()  # before the checkpoint, in case there is no time for it
        if step not in due and not saving:
            continue

        jax.block_until_ready(state)
        meter.pause()
        if memory is None:  # before an evaluation adds to the peak
            needed = peak_bytes(executable)
            memory = peak.read(needed)._asdict() | {"compiled_bytes": needed}
        if step in log_at:
            values = Metrics(*jax.device_get(metrics)).as_columns() | meter.row(step - logged)
            values["train/positive_pairs"] = cell.batch_size
            values["train/negative_pairs"] = cell.pairs.negatives(cell.batch_size)
            log.row(step, values | loader.metrics(step))
            logged = step
            if not math.isfinite(values["train/loss"]):
                status = "diverged"
                break
        if step in evaluator.steps:
            with stopwatch.time("eval"):
                result = evaluator.run(step, state.params)
                log.items(result.items)
                log.row(step, result.metrics)
        if saving:
            log.flush()  # rows up to a checkpoint must be durable before it is
            with stopwatch.time("checkpoint"):
                checkpoints.save(step, state, loader.metrics(step))
            saved = time.monotonic()
        if stopping and step < cell.steps:
            checkpoints.wait()
            raise Stopped(f"{cell.id} stopped at step {step} of {cell.steps}")
        meter.resume()

    with stopwatch.time("checkpoint"):
        checkpoints.wait()
    seconds = {"total": stopwatch.total, "train": meter.seconds, **stopwatch.seconds}
    return log.finish(step, status, seconds, memory)


def _open(
    cell: Cell,
    execution: Execution,
    record: Record,
    group: str,
    run_name: str,
    stack: contextlib.ExitStack,
) -> _Parts:
    """Open data, state and record; `stack` closes them, however the attempt ends."""
    mesh = make_mesh(jax.devices())
    check_layout(cell, execution, mesh)
    primary = jax.process_index() == 0

    def open_data() -> tuple[Tokenizer, TrainLoader, Evaluator]:
        dataset = open_dataset(execution, cell.data.dataset)
        tokenizer = Tokenizer.open(dataset, cell.data)
        read = make_read_fn(cell, vocabulary=tokenizer.vocabulary)
        loader = TrainLoader(cell, execution, dataset, mesh, read)
        evaluator = Evaluator(cell, dataset, tokenizer, mesh, execution.eval_batch_size)
        if primary:
            record.check(cell.hash, loader.fingerprint)
        return tokenizer, loader, evaluator

    tokenizer, loader, evaluator = raise_together(open_data)
    _close_on_exit(stack, loader.close)
    meter = Meter(cell, channels=loader.image_shape[-1])
    _close_on_exit(stack, meter.close)

    profile = Profile(None if execution.profile is None else Path(execution.profile) / cell.id)
    _close_on_exit(stack, profile.close)
    program = train_program(
        cell,
        execution,
        tokenizer.vocabulary,
        loader.image_shape,
        mesh,
        image_dtype=loader.image_dtype,
    )
    checkpoints = Checkpoints(
        record.folder / "checkpoints",
        keep_last=execution.keep_last,
        keep_at=execution.kept_steps(cell.steps),
    )
    _close_on_exit(stack, checkpoints.close)
    origin: dict[str, Any] | None = None  # where parameters came from, see `Model.init`
    # Into shapes, so that the devices never hold two states.
    restored = checkpoints.restore(program.state)
    if restored is not None:
        state: State = restored.state
        loader.resume(int(state.step), restored.metadata.get(REPLACED, 0))
        if primary:
            origin = (read_json(record.folder / CELL) or {}).get("start")
    elif cell.branch is not None:
        state = start_branch(cell, program, record.folder)
    else:
        state = program.init_state(cell)
        if cell.model.init is not None:
            params, origin = init_from_checkpoint(cell, state.params, execution.data_root)
            state = state._replace(params=jax.device_put(params, program.shardings.params))

    about = {
        "id": cell.id,
        "hash": cell.hash,
        "group": group,
        "cell": to_dict(cell),
        "code": code_version(),
        "versions": library_versions(),
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "dataset_fingerprint": loader.fingerprint,
        "dataset_examples": loader.examples,
        **({} if origin is None else {"start": origin}),
        "parameters": sum(a.size for a in jax.tree.leaves(state.params)),
        "steps": cell.steps,
        "examples": cell.examples,
        "pairs_per_step": cell.pairs_per_step,
    }

    def open_log() -> _Log:
        step = int(state.step)
        summary = record.summary(step) if primary and step else {}
        if primary:
            _close_on_exit(stack, record.close)
            record.begin(
                about,
                seen=_progress(cell, step),
                host=socket.gethostname(),
                pid=os.getpid(),
                versions=about["versions"],
            )
        device = jax.devices()[0]
        machine = execution.slice or f"{jax.device_count()} x {device.device_kind}"
        mirror = WandbMirror(
            record.folder,
            group=group,
            run_id=cell.id,
            name=run_name,
            config=about,
            tags=(group, machine, about["code"]),
            first_step=record.lines,
            system_metrics=device.platform != "cpu",
            enabled=execution.wandb and primary,
        )
        stack.push(lambda kind, error, trace: mirror.finish(error))  # never raises
        return _Log(cell, record, mirror, primary, summary)

    return _Parts(
        cell=cell,
        execution=execution,
        loader=loader,
        program=program,
        checkpoints=checkpoints,
        state=state,
        evaluator=evaluator,
        meter=meter,
        profile=profile,
        log=raise_together(open_log),
    )


@dataclasses.dataclass(frozen=True)
class _Log:
    """Writes rows to the record and its mirror, on process 0 only.

    Attributes:
      summary: the last value of every metric.
    """

    cell: Cell
    record: Record
    mirror: WandbMirror
    primary: bool
    summary: dict[str, Any]

    def row(self, step: int, values: dict[str, Any]) -> None:
        # JSON has no NaN and infinity, and every reader must be able to parse a diverged cell.
        values = {k: None if v != v or math.isinf(v) else v for k, v in values.items()}
        self.summary.update(values)
        if self.primary:
            progress = _progress(self.cell, step)
            self.record.row(progress, **values)
            self.mirror.row(progress, self.record.attempt, values)

    def event(self, step: int, event: str) -> None:
        if self.primary:
            self.record.row(_progress(self.cell, step), event=event)

    def items(self, items: dict[str, np.ndarray]) -> None:
        if self.primary:
            self.record.items(items)

    def flush(self) -> None:
        if self.primary:
            self.record.flush()

    def discard(self) -> None:
        if self.primary:
            self.record.discard()

    def finish(
        self, step: int, status: str, seconds: dict[str, float], memory: dict[str, Any] | None
    ) -> dict[str, Any]:
        if not self.primary:
            return {"status": status, "step": step}
        if status == "diverged":
            self.mirror.diverged()
        return self.record.finish(
            _progress(self.cell, step),
            status=status,
            summary=self.summary,
            seconds={k: round(v, 3) for k, v in seconds.items()},
            memory=memory,
        )


def _progress(cell: Cell, step: int) -> Progress:
    return Progress(step, step * cell.batch_size, cell.pairs_seen(step))


def _close_on_exit(stack: contextlib.ExitStack, close: Callable[[], None]) -> None:
    """Have `stack` call `close` without hiding the error that ended the run."""

    def on_exit(
        _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            close()
        except Exception as another:
            if error is None:
                raise
            error.add_note(f"and while closing: {format_error(another)}")

    stack.push(on_exit)
