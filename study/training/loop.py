"""Trains one cell from start to DONE, or goes on where its record stops.

    done = train(cell, Execution(), folder=Path("runs/demo") / cell.id, group="demo")

Every process of a multi-host run calls `train`; process 0 alone writes the record.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from study.config.budget import schedule_points
from study.config.cell import Cell, Execution, to_dict
from study.data.corruption import make_read_fn
from study.data.formats.dataset import Dataset
from study.data.tokenizer import Tokenizer
from study.evals import Evaluator
from study.models.sharding import check_layout, make_mesh, param_shardings, put
from study.records.provenance import code_version, library_versions
from study.records.record import CELL, Progress, Record, read_json
from study.records.storage import format_error
from study.records.wandb_mirror import WandbMirror
from study.training.checkpoint import Checkpoints
from study.training.compile import abstract_state, compiled, initial
from study.training.init_from import init_from_checkpoint
from study.training.loader import REPLACED, Feed
from study.training.microbatch import peak_bytes
from study.training.multihost import any_process, raise_together
from study.training.peak_memory import PeakMemory
from study.training.step import Metrics, State
from study.training.throughput import Meter


class Stopped(Exception):
    """The run was asked to stop and has saved a checkpoint; `train` again goes on from there."""


def never() -> bool:
    return False


def train(
    cell: Cell,
    execution: Execution,
    *,
    folder: Path,
    group: str,
    run_name: str | None = None,
    should_stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Trains `cell` into the record `folder` and returns the content of its DONE.json.

    A cell that is done is not entered again. One that was interrupted goes on from its last
    checkpoint and ends with the same numbers, bit for bit on CPU, as if it had not been.

    Arguments:
      folder: `<root>/<group>/<cell id>`.
      group: the folder of the study's records, and wandb's group.
      run_name: the name of the run in wandb; None is the cell's id.
      should_stop: asked between compiled loops of steps.

    Raises:
      Stopped: `should_stop` said so; a checkpoint is saved.
      CellError, DataError, RecordError: bad input, in one line that says how to fix it.
    """
    record = Record(folder)
    if (done := record.done) is not None:
        return done
    with contextlib.ExitStack() as stack:
        return _Run(cell, execution, record, group, run_name or cell.id, stack).go(should_stop)


class _Run:
    """One attempt at a cell.

    Arguments:
      stack: closes whatever was opened, however the attempt ends.
    """

    def __init__(
        self,
        cell: Cell,
        execution: Execution,
        record: Record,
        group: str,
        run_name: str,
        stack: contextlib.ExitStack,
    ):
        self.cell, self.execution, self.record = cell, execution, record
        self.seconds = dict.fromkeys(("open", "compile", "eval", "checkpoint"), 0.0)
        self.started = time.perf_counter()
        self.primary = jax.process_index() == 0
        self.mesh = make_mesh(jax.devices())
        check_layout(cell, execution, self.mesh)
        self.summary: dict[str, Any] = {}
        self.start: dict[str, Any] | None = None
        self.memory: dict[str, Any] | None = None
        with self._timed("open"):
            raise_together(lambda: self._open_data(stack))
            self._open_state(stack)
            raise_together(lambda: self._open_record(group, run_name, stack))
        self.saved = time.monotonic()

    def _open_data(self, stack: contextlib.ExitStack) -> None:
        """What a process opens by itself."""
        cell = self.cell
        self.dataset = Dataset.open(Path(self.execution.data_root) / cell.data.dataset)
        tokenizer = Tokenizer.open(self.dataset, cell.data)
        self.vocabulary = tokenizer.vocabulary
        read = make_read_fn(cell, vocabulary=tokenizer.vocabulary)
        self.feed = Feed(cell, self.execution, self.dataset, self.mesh, read)
        self.meter = Meter(cell, channels=self.feed.image_shape[-1])
        stack.push(_close_after(self.meter.close))
        self.evaluator = Evaluator(
            cell, self.dataset, tokenizer, self.mesh, self.execution.eval_batch_size
        )
        if self.primary:
            self.record.check(cell.hash, self.dataset.fingerprint)

    def _open_state(self, stack: contextlib.ExitStack) -> None:
        """The state that training goes on from, which all processes make or read together."""
        cell, execution = self.cell, self.execution
        program = (cell, execution, self.vocabulary, self.feed.image_shape, self.mesh)
        self.checkpoints = Checkpoints(
            self.record.folder / "checkpoints",
            keep_last=execution.keep_last,
            keep_at=self._kept_at(),
        )
        stack.push(_close_after(self.checkpoints.close))
        # Only shapes: the devices need not have room for two states at once.
        restored = self.checkpoints.restore(abstract_state(*program))
        if restored is not None:
            self.state: State = restored.state
            self.feed.resume(int(self.state.step), restored.metadata.get(REPLACED, 0))
            if self.primary:
                self.start = (read_json(self.record.folder / CELL) or {}).get("start")
        else:
            self.state = initial(*program)
            if cell.model.init is not None:
                params, self.start = init_from_checkpoint(
                    cell, self.state.params, execution.data_root
                )
                self.state = self.state._replace(params=self._placed(params))
        self.step = int(self.state.step)

    def _open_record(self, group: str, run_name: str, stack: contextlib.ExitStack) -> None:
        """The record and its mirror, which the first process alone writes."""
        about = self._about(group)
        if self.primary:
            if self.step:
                self.summary = self.record.summary(self.step)
            stack.push(_close_after(self.record.close))
            self.record.begin(
                about,
                seen=self._seen(self.step),
                host=socket.gethostname(),
                pid=os.getpid(),
                versions=about["versions"],
            )
        self.mirror = WandbMirror(
            self.record.folder,
            group=group,
            run_id=self.cell.id,
            name=run_name,
            config=about,
            enabled=self.execution.wandb and self.primary,
        )
        stack.push(_close_after(lambda: self.mirror.finish(failed=self.record.done is None)))

    def go(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        cell, steps = self.cell, self.cell.steps
        log_at = set(schedule_points(self.execution.log_every_percent, steps))
        save_at = self._kept_at() | {steps}
        eval_at = self.evaluator.steps
        due = log_at | save_at | eval_at
        loop, previous, logged = None, None, self.step
        for length, batch in self.feed.pieces(self.step, due):
            self.meter.batch_ready()
            if loop is None:
                with self._timed("compile"):
                    loop = self._compile()
                watermark = PeakMemory(self.state)
                self.meter.resume()
            first_of_interval = np.bool_(self.step in log_at)
            self.state, metrics = loop(self.state, batch, np.int32(length), first_of_interval)
            self.meter.dispatched(metrics)
            # The host may run ahead by one piece, or the devices would hold the examples of many.
            jax.block_until_ready(previous)
            previous = metrics
            self.step += length
            stopping, saving = self._agree(should_stop)
            saving = saving or stopping or self.step in save_at
            if self.step not in due and not saving:
                continue
            jax.block_until_ready(self.state)
            self.meter.pause()
            if self.memory is None:  # before an evaluation adds to it
                needed = peak_bytes(loop)
                self.memory = watermark.read(needed)._asdict() | {"compiled_bytes": needed}
            if self.step in log_at:
                if not self._log(metrics, self.meter.row(self.step - logged)):
                    return self._finish("diverged")
                logged = self.step
            if self.step in eval_at:
                with self._timed("eval"):
                    self._evaluate()
            if saving:
                self._save()
            if stopping and self.step < steps:
                self.checkpoints.wait()
                raise Stopped(f"{cell.id} stopped at step {self.step} of {steps}")
            self.meter.resume()
        return self._finish("done")

    def _compile(self) -> Any:
        """The loop of steps, at the microbatch that is asked for."""
        loop, found = compiled(
            self.cell, self.execution, self.vocabulary, self.feed.image_shape, self.mesh
        )
        if found is not None:
            self.summary["execution/microbatch"] = found
        return loop

    # --- what happens between steps -------------------------------------------------------------

    def _log(self, metrics: Metrics, speed: dict[str, float]) -> bool:
        """Record a row of the last step and its interval; False if the loss is NaN or infinite."""
        values: dict[str, Any] = Metrics(*jax.device_get(metrics)).as_columns() | speed
        # Of one step, and exact: the selection keeps neither one more nor one less.
        values["train/positive_pairs"] = self.cell.batch_size
        values["train/negative_pairs"] = self.cell.pairs.negatives(self.cell.batch_size)
        self._row(values | self.feed.metrics())
        return math.isfinite(values["train/loss"])

    def _evaluate(self) -> None:
        result = self.evaluator.run(self.step, self.state.params)
        if self.primary:
            self.record.items(result.items)
        self._row(result.metrics)

    def _agree(self, should_stop: Callable[[], bool]) -> list[bool]:
        """Whether any process was asked to stop, and whether a checkpoint is due by the clock."""
        elapsed = time.monotonic() - self.saved
        due = self.primary and elapsed >= 60 * self.execution.checkpoint_every_minutes
        asked = should_stop()
        if jax.process_count() > 1:
            # CPUs may run the step and the exchange below at once and mix up their messages.
            # Other devices run the exchange after the step in any case.
            jax.block_until_ready(self.state)
        return any_process(asked, due)

    def _save(self) -> None:
        if self.primary:
            self.record.flush()  # rows up to a checkpoint must be durable before it is
        with self._timed("checkpoint"):
            self.checkpoints.save(self.step, self.state, self.feed.metrics())
        self.saved = time.monotonic()

    def _finish(self, status: str) -> dict[str, Any]:
        with self._timed("checkpoint"):
            self.checkpoints.wait()
        total = time.perf_counter() - self.started
        spent = {"total": total, "train": self.meter.seconds, **self.seconds}
        seconds = {k: round(v, 3) for k, v in spent.items()}
        seen = self._seen(self.step)
        if not self.primary:
            return {"status": status, "step": seen.step}
        return self.record.finish(
            seen, status=status, summary=self.summary, seconds=seconds, memory=self.memory
        )

    def _row(self, values: dict[str, Any]) -> None:
        # NaN is no JSON, and a diverged cell must stay readable by everything.
        values = {k: None if v != v or math.isinf(v) else v for k, v in values.items()}
        self.summary |= values
        if self.primary:
            seen = self._seen(self.step)
            self.record.row(seen, **values)
            self.mirror.row(seen, self.record.attempt, values)

    # --- where things are -----------------------------------------------------------------------

    def _kept_at(self) -> set[int]:
        share = self.execution.keep_every_percent
        return set() if share is None else set(schedule_points(share, self.cell.steps))

    def _seen(self, step: int) -> Progress:
        return Progress(step, step * self.cell.batch_size, step * self.cell.pairs_per_step)

    def _placed(self, params: Any) -> Any:
        """Parameters some of which are read from a file, all where they belong."""
        where = param_shardings(params, self.mesh, self.execution.fsdp_mib)
        read = jax.tree.map(lambda a: isinstance(a, np.ndarray), params)
        return jax.tree.map(lambda a, new, at: put(a, at) if new else a, params, read, where)

    def _about(self, group: str) -> dict[str, Any]:
        cell = self.cell
        return {
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
            "dataset_fingerprint": self.dataset.fingerprint,
            "dataset_examples": self.dataset.split(cell.data.split).examples,
            **({} if self.start is None else {"start": self.start}),
            "parameters": sum(a.size for a in jax.tree.leaves(self.state.params)),
            "steps": cell.steps,
            "examples": cell.examples,
            "pairs_per_step": cell.pairs_per_step,
        }

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start


def _close_after(close: Callable[[], None]) -> Callable[..., None]:
    """An exit callback that calls `close` and never hides the error that ended the run."""

    def on_exit(
        _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            close()
        except Exception as another:
            if error is None:
                raise
            error.add_note(f"and while closing: {format_error(another)}")

    return on_exit
