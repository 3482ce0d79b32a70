"""How fast a run trains: examples per second, model FLOPs utilisation, waiting for data."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from study.config.cell import Cell
from study.config.hardware import get_chip
from study.models.flops import step_flops

# What a clock says of a run, and so what differs when it is run again.
TIMING_METRICS = ("train/examples_per_s", "train/data_wait_share", "train/mfu")


class Meter:
    """The speed of training between two rows; evaluations and checkpoints do not count.

    Rows get, of the time since the last row:
      train/examples_per_s: over all devices.
      train/data_wait_share: share of it in which the devices of this process had finished all
        that they were given and the next piece of the data was not there yet, 0 to 1. A wait
        that the work of the devices covers costs nothing and does not count.
      train/mfu: model FLOPs utilisation, 0 to 1: the operations that the model needs
        (`study.models.flops`, nothing computed a second time) over the chips' bfloat16 peak by
        datasheet. Left out for CPUs, and for chips that `study.config.hardware` does not know.

    Arguments:
      channels: of the images.

    Attributes:
      seconds: of training so far.
    """

    def __init__(self, cell: Cell, *, channels: int):
        self._batch_size = cell.batch_size
        device = jax.devices()[0]
        chip = get_chip(device.device_kind)
        self._flops_ratio: float | None = None  # of a step, over what the devices could in 1 s
        if chip is not None and chip.kind != "cpu":
            peak = chip.peak_flops / chip.devices * jax.device_count()
            self._flops_ratio = step_flops(cell, channels=channels).model / peak
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="meter")
        self._work: Future[float] | None = None
        self.seconds = self._of_row = self._waited = 0.0
        self._since: float | None = None

    def resume(self) -> None:
        """Training goes on, after something else or for the first time; the devices are idle."""
        self._since, self._work = time.perf_counter(), None

    def dispatched(self, result: Any) -> None:
        """The devices have been given work that ends with `result`."""
        self._work = self._watcher.submit(_ready_at, result)

    def batch_ready(self) -> None:
        """A piece of the data has arrived."""
        if self._since is None:
            return
        if self._work is None:
            self._waited += time.perf_counter() - self._since
        elif self._work.done():
            self._waited += time.perf_counter() - max(self._since, self._work.result())

    def pause(self) -> None:
        """Something else comes; the devices have finished. Stopped already, it stays so."""
        if self._since is not None:
            spent = time.perf_counter() - self._since
            self.seconds, self._of_row = self.seconds + spent, self._of_row + spent
        self._since = None

    def row(self, steps: int) -> dict[str, float]:
        """The speed of the `steps` since the last row, as columns; the meter is stopped."""
        seconds, waited = self._of_row, self._waited
        self._of_row = self._waited = 0.0
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
