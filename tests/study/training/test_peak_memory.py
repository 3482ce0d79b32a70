"""What a step held on a device, as measured."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.training import memory
from study.training.memory import Peak, PeakMemory

MIB = 2**20


def state(mib: int) -> jax.Array:
    return jnp.zeros((mib, MIB // 4), jnp.float32).block_until_ready()


def test_the_state_and_what_comes_on_top_of_it_count_and_what_was_before_does_not(tmp_path):
    """Of 256 MiB, filled and gone before, no byte; of 64 MiB held for a moment, all."""
    if not (memory._PROC / "clear_refs").exists():
        pytest.skip("no Linux")
    np.ones(256 * MIB, np.uint8)
    held = state(32)
    mark = PeakMemory(held)
    np.ones(64 * MIB, np.uint8)  # all of its pages are touched
    peak = mark.read(100 * MIB)
    assert peak.source == "process"
    share = 64 / jax.local_device_count()
    assert peak.peak_bytes / MIB == pytest.approx(32 + share, abs=8)


class Device:
    """An accelerator whose allocator has been at `peak` bytes."""

    def __init__(self, peak: int):
        self.peak = peak

    def memory_stats(self) -> dict[str, int]:
        return {"peak_bytes_in_use": self.peak}


@pytest.mark.parametrize(("after", "found"), [((70, 90), 90), ((60, 80), None)])
def test_a_peak_is_the_fullest_devices_and_one_that_did_not_rise_is_an_earlier_cells(
    monkeypatch, after, found
):
    devices = [Device(60), Device(80)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    mark = PeakMemory({})
    for device, peak in zip(devices, after, strict=True):
        device.peak = peak
    assert mark.read(MIB) == Peak(found, "device")  # of steps of any size


def test_where_the_system_does_not_tell_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROC", tmp_path / "none")
    assert PeakMemory({}).read(100 * MIB) == Peak(None, "process")


def test_growth_of_the_process_is_not_called_a_small_steps():
    mark = PeakMemory({})
    np.ones(64 * MIB, np.uint8)
    assert mark.read(100 * MIB - 1) == Peak(None, "process")
