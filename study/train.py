"""Trains one cell from start to DONE, or goes on where its record stops.

    done = train(cell, Execution(), folder=Path("runs/demo") / cell.id, study="demo")

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
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from study.cell import Cell, Execution, to_dict
from study.checkpoint import Checkpoints
from study.data import corrupt
from study.data.dataset import Dataset
from study.data.tokens import Tokenizer
from study.durations import every
from study.evals import Evaluator
from study.feed import REPLACED, Feed
from study.interop.start import start_from
from study.microbatch import memory
from study.programs import compiled, initial, noise
from study.provenance import code_version, versions
from study.records import Record, Seen
from study.sharding import check, laid_out, mesh_over, put, whole_here
from study.step import Metrics, State
from study.throughput import Meter
from study.tracker import WandbMirror
from study.watermark import Watermark


class Stopped(Exception):
    """The run was asked to stop and has saved a checkpoint; `train` again goes on from there."""


def never() -> bool:
    return False


def train(
    cell: Cell,
    execution: Execution,
    *,
    folder: Path,
    study: str,
    should_stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Trains `cell` into the record `folder` and returns the content of its DONE.json.

    A cell that is done is not entered again. One that was interrupted goes on from its last
    checkpoint and ends with the same numbers, bit for bit on CPU, as if it had not been.

    Arguments:
      folder: `<root>/<study>/<cell id>`.
      should_stop: asked between compiled loops of steps.

    Raises:
      Stopped: `should_stop` said so; a checkpoint is saved.
      CellError, DataError, RecordError: bad input, in one line that says how to mend it.
    """
    record = Record(folder)
    if (done := record.done) is not None:
        return done
    run = _Run(cell, execution, record, study)
    try:
        return run.go(should_stop)
    finally:
        run.close()


class _Run:
    """One attempt at a cell."""

    def __init__(self, cell: Cell, execution: Execution, record: Record, study: str):
        self.cell, self.execution, self.record = cell, execution, record
        self.seconds = dict.fromkeys(("open", "compile", "eval", "noise", "checkpoint"), 0.0)
        self.started = time.perf_counter()
        self.primary = jax.process_index() == 0
        self.mesh = mesh_over(jax.devices())
        check(cell, execution, self.mesh)
        self.summary: dict[str, Any] = {}
        self.start: dict[str, Any] | None = None
        self.checkpoints: Checkpoints | None = None
        self.meter: Meter | None = None
        self.microbatch: int | None = None
        self.mirror: WandbMirror | None = None
        self.memory: dict[str, Any] | None = None
        with self._timed("open"):
            self._open(study)

    def _open(self, study: str) -> None:
        cell = self.cell
        self.dataset = Dataset.open(Path(self.execution.data_root) / cell.data.dataset)
        tokenizer = Tokenizer.of(self.dataset, cell.data)
        self.vocabulary = tokenizer.vocabulary
        read = corrupt.reader(cell, vocabulary=tokenizer.vocabulary, eos=tokenizer.eos)
        self.feed = Feed(cell, self.execution, self.dataset, self.mesh, read)
        self.meter = Meter(cell, channels=self.feed.image_shape[-1])
        self.evaluator = Evaluator(cell, self.dataset, tokenizer, self.execution.eval_batch_size)
        state = initial(cell, self.execution, self.vocabulary, self.feed.image_shape, self.mesh)
        if cell.model.init is not None:
            params, self.start = start_from(cell.model.init, state.params, self.execution.data_root)
            state = state._replace(params=self._placed(params))
        self.checkpoints = Checkpoints(
            self.record.folder / "checkpoints",
            keep_last=self.execution.keep_last,
            keep_at=self._kept_at(),
        )
        self.state: State = self.checkpoints.restore(state) or state
        self.step = int(self.state.step)
        if not self.primary:
            return
        about = self._about(study)
        if self.step:
            self.summary = self.record.summary(self.step)
            self.feed.replaced = int(self.summary.get(REPLACED, 0))
        self.record.begin(
            about,
            seen=self._seen(self.step),
            host=socket.gethostname(),
            pid=os.getpid(),
            versions=about["versions"],
        )
        self.mirror = WandbMirror(
            self.record.folder,
            study=study,
            cell_id=cell.id,
            config=about,
            enabled=self.execution.wandb,
        )

    def go(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        assert self.meter is not None
        cell, steps = self.cell, self.cell.steps
        log_at = set(every(self.execution.log_every_percent, steps))
        save_at = set(every(self.execution.checkpoint_every_percent, steps)) | self._kept_at()
        eval_at = self.evaluator.steps
        due = log_at | save_at | eval_at
        loop, logged = None, self.step
        for length, batch in self.feed.pieces(self.step, due):
            self.meter.arrived()
            if loop is None:
                with self._timed("compile"):
                    loop = self._compile()
                watermark = Watermark(self.state)
                self.meter.start()
            self.state, metrics = loop(self.state, batch, np.int32(length))
            self.meter.handed_over(metrics)
            self.step += length
            stopping = _agreed(should_stop, after=self.state)
            if self.step not in due and not stopping:
                continue
            jax.block_until_ready(self.state)
            self.meter.stop()
            if self.memory is None:  # before an evaluation adds to it
                self.memory = watermark.read()._asdict() | {"compiled_bytes": memory(loop)}
            if self.step in log_at or stopping:
                if not self._log(metrics, self.meter.row(self.step - logged)):
                    return self._finish("diverged")
                logged = self.step
            if self.step in eval_at:
                with self._timed("eval"):
                    self._evaluate()
            if self.step in save_at or stopping:
                self._save()
            if stopping and self.step < steps:
                raise Stopped(f"{cell.id} stopped at step {self.step} of {steps}")
            self.meter.start()
        return self._finish("done")

    def close(self) -> None:
        """Leaves files whole, however the attempt ended."""
        if self.checkpoints is not None:
            self.checkpoints.close()
        if self.meter is not None:
            self.meter.close()
        if self.mirror is not None:
            self.mirror.finish(failed=self.record.done is None)
        self.record.close()

    def _compile(self) -> Any:
        """The loop of steps, at the microbatch that is asked for."""
        loop, found = compiled(
            self.cell, self.execution, self.vocabulary, self.feed.image_shape, self.mesh
        )
        asked = self.execution.microbatch
        self.microbatch = asked if isinstance(asked, int) else found
        if found is not None:
            self.summary["execution/microbatch"] = found
        return loop

    # --- what happens between steps -------------------------------------------------------------

    def _log(self, metrics: Metrics, speed: dict[str, float]) -> bool:
        """Records the metrics of the last step; False when the loss is no number any more."""
        values: dict[str, Any] = Metrics(*jax.device_get(metrics)).named() | speed
        # Of one step, and exact: the selection keeps neither one more nor one less.
        values["train/positive_pairs"] = self.cell.batch_size
        values["train/negative_pairs"] = self.cell.pairs.negatives(self.cell.batch_size)
        self._row(values | self.feed.metrics() | self._noise())
        return math.isfinite(values["train/loss"])

    def _noise(self) -> dict[str, float]:
        count = self.execution.gradient_noise_batches
        if count is None:
            return {}
        with self._timed("noise"):
            found = noise(
                *(self.cell, self.execution, self.vocabulary, self.state),
                *(self.feed.beyond(self.step, count), self.mesh),
                microbatch=self.microbatch,
            )
        return found.named()

    def _evaluate(self) -> None:
        result = self.evaluator.run(self.step, whole_here(self.state.params))
        if self.primary:
            self.record.items(result.items)
        self._row(result.metrics)

    def _save(self) -> None:
        assert self.checkpoints is not None
        if (values := self.feed.metrics()) and values[REPLACED] != self.summary.get(REPLACED):
            self._row(values)  # so that a restart goes on counting from here
        if self.primary:
            self.record.flush()  # no row up to a checkpoint may be younger than it
        with self._timed("checkpoint"):
            self.checkpoints.save(self.step, self.state)

    def _finish(self, status: str) -> dict[str, Any]:
        assert self.checkpoints is not None
        with self._timed("checkpoint"):
            self.checkpoints.close()
        self.checkpoints = None
        total = time.perf_counter() - self.started
        assert self.meter is not None
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
            assert self.mirror is not None
            seen = self._seen(self.step)
            self.record.row(seen, **values)
            self.mirror.row(seen, self.record.attempt, values)

    # --- where things are -----------------------------------------------------------------------

    def _kept_at(self) -> set[int]:
        share = self.execution.keep_every_percent
        return set() if share is None else set(every(share, self.cell.steps))

    def _seen(self, step: int) -> Seen:
        return Seen(step, step * self.cell.batch_size, step * self.cell.pairs_per_step)

    def _placed(self, params: Any) -> Any:
        """Parameters some of which are read from a file, all where they belong."""
        where = laid_out(params, self.mesh, self.execution.fsdp_mib)
        read = jax.tree.map(lambda a: isinstance(a, np.ndarray), params)
        return jax.tree.map(lambda a, new, at: put(a, at) if new else a, params, read, where)

    def _about(self, study: str) -> dict[str, Any]:
        cell = self.cell
        return {
            "id": cell.id,
            "hash": cell.hash,
            "study": study,
            "cell": to_dict(cell),
            "code": code_version(),
            "versions": versions(),
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


def _agreed(should_stop: Callable[[], bool], *, after: State) -> bool:
    """Whether any process was asked to stop; all get the same answer at the same step.

    after: what the devices are at. CPUs run two programs at once, and then what one of them sends
      arrives in the other; the answer cannot come before on other devices anyhow.
    """
    mine = should_stop()
    if jax.process_count() == 1:
        return mine
    jax.block_until_ready(after)
    return bool(np.any(multihost_utils.process_allgather(np.asarray(mine))))
