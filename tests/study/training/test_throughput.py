"""What a run's speed is: what counts as time, and what counts as waiting."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import jax
import pytest

from study.config import Cell, MeanPoolText, Model, ViT
from study.config.hardware import CHIPS
from study.models.flops import step_flops
from study.training import throughput
from study.training.throughput import TIMING_METRICS, Meter

CELL = Cell(
    model=Model(image=ViT(variant="mu/6", image_size=12), text=MeanPoolText(), embed_dim=32),
    batch_size=16,
)


class Clock:
    """Stands in for `time` and for the thread that waits for the devices."""

    def __init__(self, monkeypatch):
        self.now, self.jobs = 0.0, []
        monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def meter(self) -> Meter:
        meter = Meter(CELL, channels=1)
        meter._watcher = self
        return meter

    def submit(self, _, result) -> Future:
        self.jobs.append((result, future := Future()))
        return future

    def at(self, now: float) -> None:
        """The time is `now`; work that ended before has ended."""
        self.now = now
        for ends, future in self.jobs:
            if ends <= now and not future.done():
                future.set_result(ends)

    def shutdown(self) -> None:
        pass


def test_only_time_in_which_the_devices_had_nothing_to_do_is_waiting(monkeypatch):
    clock = Clock(monkeypatch)
    meter = clock.meter()
    meter.batch_ready()  # the first piece, before the clock starts
    meter.resume()
    meter.dispatched(4.0)  # that is when the devices will have done it
    clock.at(3.0)
    meter.batch_ready()  # while they work
    meter.dispatched(6.0)
    clock.at(9.0)
    meter.batch_ready()  # 3 s late
    meter.dispatched(10.0)
    clock.at(10.0)
    meter.pause()
    assert meter.row(10) == {"train/examples_per_s": 16.0, "train/data_wait_share": 0.3}


def test_evaluations_and_checkpoints_are_neither_training_nor_waiting(monkeypatch):
    clock = Clock(monkeypatch)
    meter = clock.meter()
    meter.resume()
    meter.dispatched(2.0)
    clock.at(2.0)
    meter.pause()  # a checkpoint, and no row
    clock.at(50.0)
    meter.resume()
    clock.at(51.0)
    meter.batch_ready()
    meter.dispatched(54.0)
    clock.at(54.0)
    meter.pause()
    assert meter.seconds == 6.0
    row = meter.row(12)
    assert row == {"train/examples_per_s": 32.0, "train/data_wait_share": round(1 / 6, 4)}
    assert row.keys() < set(TIMING_METRICS)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_utilisation_is_the_models_operations_over_the_chips_peak(chip, monkeypatch):
    device = SimpleNamespace(device_kind=chip.device_kinds[0])
    monkeypatch.setattr(jax, "devices", lambda: [device] * 8)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    clock = Clock(monkeypatch)
    meter = clock.meter()
    steps = round(1e12 / step_flops(CELL, channels=1).model * 100)
    meter.resume()
    clock.at(1.0)
    meter.pause()
    # 100 TFLOP in a second, on eight devices.
    want = 1e14 / (8 / chip.devices * chip.peak_flops)
    assert meter.row(steps)["train/mfu"] == pytest.approx(want, abs=1e-4)


def test_a_chip_of_unknown_peak_has_no_utilisation():
    meter = Meter(CELL, channels=1)
    meter.resume()
    meter.pause()
    assert "train/mfu" not in meter.row(1)
    meter.close()
