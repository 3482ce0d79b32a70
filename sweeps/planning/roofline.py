"""Estimated seconds of a step, from counted operations and the table of hardware.

Assumptions: the towers reach `MFU` of the chip's bfloat16 peak; so does the loss, unless its ring
or its memory traffic takes longer, which overlap with it; gradients are summed round one ring in
both directions, and sharded parameters (FSDP) are gathered once for every pass, without overlap;
the optimizer reads and writes its state once. Measurements replace all of this
(`sweeps.planning.calibrate`).
"""

from __future__ import annotations

from dataclasses import dataclass

from study.config import Cell
from study.config.hardware import Slice
from study.models.flops import Flops
from study.planning.fits import RunSetting
from sweeps.planning.memory import moment_bytes

# Assumed shares of the peak, not measured. Lower for chips whose peak grew faster than their
# memory bandwidth.
MFU = {
    **{"v4": 0.40, "v5e": 0.40, "v5p": 0.40, "v6e": 0.30, "7x": 0.25},
    **{"gpu:h100": 0.35, "gpu:h200": 0.35, "cpu": 0.25},
}
# Images that stay on the chip while the texts stream past, see `study.losses.pallas_tpu`.
_PANEL = 1024


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step, in parts that add up.

    Attributes:
      towers: forward, backward and recomputation.
      loss: the longest of its operations, its ring and its memory traffic.
      loss_bound: which of them: "compute", "interconnect" or "memory".
      gradients: their sum over all devices.
      gathers: of sharded parameters.
      optimizer: its memory traffic.
    """

    towers: float
    loss: float
    loss_bound: str
    gradients: float
    gathers: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.towers + self.loss + self.gradients + self.gathers + self.optimizer


def step_time(
    cell: Cell, flops: Flops, machine: Slice, setting: RunSetting, parameters: int
) -> StepTime:
    """Estimated seconds of one step of `cell` on `machine`.

    Arguments:
      parameters: their number.
    """
    chip, devices = machine.chip, machine.devices
    rate = machine.chips * chip.peak_flops * MFU[chip.name]
    rows = -(-cell.batch_size // devices)
    loss = {
        "compute": flops.loss / rate,
        "interconnect": _ring(machine, rows * cell.model.embed_dim * 8),
        "memory": _traffic(cell, machine, rows),
    }
    bound = max(loss, key=lambda name: loss[name])
    passes = 1 if setting.microbatch is None else -(-rows // setting.microbatch)
    moved = 4 * parameters
    gathers = 0.0
    if setting.fsdp_min_mib is not None:
        gathers = moved * passes * (3 if setting.microbatch else 2) / (2 * chip.link_rate)
    held = parameters // (1 if setting.fsdp_min_mib is None else devices // machine.slices)
    hbm_rate = chip.hbm_rate / chip.devices
    return StepTime(
        towers=(flops.towers + flops.recompute) / rate,
        loss=loss[bound],
        loss_bound=bound,
        gradients=_summed(machine, moved),
        gathers=gathers,
        optimizer=held * (12 + 2 * moment_bytes(cell)) / hbm_rate,
    )


def _ring(machine: Slice, hop_bytes: int) -> float:
    """Seconds to bring all texts to a device and their gradients back: a ring in each slice.

    Slices exchange theirs first, each chip its own (`study.losses.ring`).
    """
    if machine.devices == 1:
        return 0.0
    between = (machine.slices - 1) * hop_bytes / machine.chip.network_rate
    return between + machine.devices * hop_bytes / machine.chip.link_rate


def _traffic(cell: Cell, machine: Slice, rows: int) -> float:
    """Seconds of memory traffic: texts and their gradients stream past every panel of images."""
    panels = -(-rows // _PANEL)
    moved = machine.devices * rows * cell.model.embed_dim * (12 * panels + 16)
    return moved / (machine.chip.hbm_rate / machine.chip.devices)


def _summed(machine: Slice, moved: int) -> float:
    """Seconds of a sum over all devices: within each slice, then between slices by all hosts."""
    inside = machine.devices // machine.slices
    seconds = 2 * moved * (inside - 1) / inside / (2 * machine.chip.link_rate)
    if machine.slices > 1:
        seconds += 2 * moved / (machine.chip.network_rate * machine.chips_per_slice)
    return seconds
