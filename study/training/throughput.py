"""How fast a run trains: examples per second, model FLOPs utilisation, waiting for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from study.config import Cell
from study.config.hardware import get_chip
from study.models.flops import step_flops

# Metrics that depend on the clock, and so differ when a run is repeated.
TIMING_METRICS = ("train/examples_per_s", "train/data_wait_share", "train/mfu")


class Meter:
    """The speed of training between two rows, evaluations and checkpoints excluded.

    Columns of a row, over the time since the last one:
      train/examples_per_s: over all devices.
      train/data_wait_share: share of the time, 0 to 1, in which this process's devices had
        finished all their work and the next chunk of data was not ready. A wait that is hidden
        behind the devices' work does not count.
      train/mfu: model FLOPs utilisation, 0 to 1: the operations of `study.models.flops` (nothing
        recomputed) over the chips' bfloat16 peak by datasheet. Absent on CPUs and on chips that
        `study.config.hardware` does not list.

    Arguments:
      channels: of the images.

    Attributes:
      seconds: of training so far.
    """

    def __init__(self, cell: Cell, *, channels: int):
        self._batch_size = cell.batch_size
        device = jax.devices()[0]
        chip = get_chip(device.device_kind)
        self._flops_ratio: float | None = None  # of a step, over the peak of all devices
        if chip is not None and chip.kind != "cpu":
            peak = chip.peak_flops / chip.devices * jax.device_count()
            self._flops_ratio = step_flops(cell, channels=channels).model / peak
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="meter")
        self._finished_at: Future[float] | None = None  # of the work dispatched last
        self.seconds = self._row_seconds = self._row_waited = 0.0
        self._resumed_at: float | None = None

    def resume(self) -> None:
        """Training starts or goes on; the devices are idle."""
        self._resumed_at, self._finished_at = time.perf_counter(), None

    def dispatched(self, result: Any) -> None:
        """The devices have been given work that ends with `result`."""
        self._finished_at = self._watcher.submit(_ready_at, result)

    def batch_ready(self) -> None:
        """The next chunk of data is ready."""
        if self._resumed_at is None:
            return
        if self._finished_at is None:
            self._row_waited += time.perf_counter() - self._resumed_at
        elif self._finished_at.done():
            idle_since = max(self._resumed_at, self._finished_at.result())
            self._row_waited += time.perf_counter() - idle_since

    def pause(self) -> None:
        """The devices have finished, and something other than training comes next."""
        if self._resumed_at is not None:
            elapsed = time.perf_counter() - self._resumed_at
            self.seconds, self._row_seconds = self.seconds + elapsed, self._row_seconds + elapsed
        self._resumed_at = None

    def row(self, steps: int) -> dict[str, float]:
        """The columns for the `steps` since the last row. Call `pause` first."""
        seconds, waited = self._row_seconds, self._row_waited
        self._row_seconds = self._row_waited = 0.0
        values = {
            "train/examples_per_s": round(steps * self._batch_size / seconds, 1),
            "train/data_wait_share": round(waited / seconds, 4),
        }
        if self._flops_ratio is not None:
            values["train/mfu"] = round(self._flops_ratio * steps / seconds, 4)
        return values

    def close(self) -> None:
        self._watcher.shutdown()


def _ready_at(result: Any) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()


class Stopwatch:
    """Seconds spent in the named parts of a run, and in total since construction."""

    def __init__(self, *parts: str):
        self._start = time.perf_counter()
        self.seconds = dict.fromkeys(parts, 0.0)

    @contextlib.contextmanager
    def time(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    @property
    def total(self) -> float:
        return time.perf_counter() - self._start
