"""Measured speed in place of assumed: what finished records say of the chips that they ran on."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.lines import Lines, read_lines, read_text
from analysis.record import MANIFEST
from study.cell import Cell, CellError, from_dict
from study.fit import Setting
from study.flops import Flops, step_flops
from study.hardware import TOPOLOGIES, Slice, chip_of, slice_of, slices_of
from study.parameters import count
from study.records import read_json
from sweeps.grid import StudyError
from sweeps.roofline import step_time

RATE = "train/examples_per_s"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One cell's record: its median speed, and the share of the chips' peak that this is.

    mfu: model FLOPs (towers and loss, nothing made twice) over time, chips and peak.
    """

    cell: Cell
    chip: str
    chips: int
    examples_per_s: float
    mfu: float

    @property
    def step_seconds(self) -> float:
        return self.cell.batch_size / self.examples_per_s


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured, and the median share of the peak for each kind of chip."""

    measured: tuple[Measured, ...]

    @property
    def mfu(self) -> dict[str, float]:
        chips = {m.chip for m in self.measured}
        return {
            chip: statistics.median(m.mfu for m in self.measured if m.chip == chip)
            for chip in sorted(chips)
        }

    def seconds(self, cell: Cell, flops: Flops, machine: Slice) -> float | None:
        """Of one step: its own where this cell has run on as many such chips, else by the share
        of the peak; None for a chip that was not measured."""
        for m in self.measured:
            if (m.cell.id, m.chip, m.chips) == (cell.id, machine.chip.name, machine.chips):
                return m.step_seconds
        share = self.mfu.get(machine.chip.name)
        if share is None:
            return None
        return flops.model / (machine.chips * machine.chip.peak_flops * share)


def calibration(records: str | Path) -> Calibration:
    """From all records below a folder, or from a snapshot of them.

    Raises:
      StudyError: there is none that says how fast it was, on hardware that the table knows.
    """
    root = Path(records)
    measured = tuple(_measured(root)) if root.is_dir() else ()
    if not measured:
        raise StudyError(
            f"--calibrate {records}: no record below it tells its speed on known hardware; give "
            "the --root of a sweep, or one study's folder in it"
        )
    return Calibration(measured=measured)


def predicted(found: Calibration) -> list[dict[str, Any]]:
    """Each measured cell beside what would have been predicted without it: by the assumed share
    of the peak, and by what the other cells on its chip reached (left out where there is none).

    The way in which a cell was run is not in its record, so it is taken to have computed nothing
    twice.
    """
    rows = []
    for m in found.measured:
        machine, channels = _machine(m), _channels(m.cell)
        flops = step_flops(m.cell, channels=channels)
        # The optimizer and the sum of gradients are a few per cent; the vocabulary is not known.
        time = step_time(m.cell, flops, machine, Setting(), count(m.cell, 2000, channels=channels))
        others = Calibration(measured=tuple(o for o in found.measured if o is not m))
        seconds = others.seconds(m.cell, flops, machine)
        more = {} if seconds is None else {"calibrated_examples_per_s": _rate(m.cell, seconds)}
        rows.append(
            {
                "id": m.cell.id,
                "chip": m.chip,
                "chips": m.chips,
                "batch_size": m.cell.batch_size,
                "loss": m.cell.loss.kind,
                "predicted_examples_per_s": _rate(m.cell, time.total),
                "measured_examples_per_s": float(f"{m.examples_per_s:.5g}"),
                "measured_mfu": float(f"{m.mfu:.4g}"),
                **more,
            }
        )
    return rows


def _rate(cell: Cell, step_seconds: float) -> float:
    return float(f"{cell.batch_size / step_seconds:.5g}")


def _machine(m: Measured) -> Slice:
    if m.chip in TOPOLOGIES:
        return next(s for s in slices_of(m.chip) if s.chips >= m.chips)
    return slice_of(m.chip if m.chips == 1 else f"{m.chip}x{m.chips}")


def _channels(cell: Cell) -> int:
    return 1 if cell.data.dataset == "glyphs" else 3


def _measured(root: Path) -> Iterator[Measured]:
    if (root / MANIFEST).exists():
        from analysis.snapshot import at

        snapshot = at(str(root))
        for study in snapshot.studies():
            for record in snapshot.records(study):
                if record.about is not None:
                    yield from _of(record.about, record.lines)
        return
    for path in sorted(root.rglob("cell.json")):
        if (about := read_json(path)) is not None:
            yield from _of(about, read_lines(read_text(path.parent)))


def _of(about: dict[str, Any], lines: Lines) -> Iterator[Measured]:
    """The record as a measurement, where it is one."""
    try:
        cell = from_dict(about["cell"])
        devices = about["devices"]
    except (KeyError, CellError):
        return
    chip = chip_of(str(devices.get("kind")))
    rates = [row[RATE] for row in lines.rows if row.get(RATE)]
    if chip is None or not rates:
        return
    # The first line of a run still carries what starts with it.
    rate = statistics.median(rates[1:] or rates)
    chips = max(1, int(devices.get("count", 1)) // chip.devices)
    if chip.kind == "cpu":
        chips = 1  # its devices are shares of one machine
    per_example = step_flops(cell, channels=_channels(cell)).model / cell.batch_size
    mfu = per_example * rate / (chips * chip.peak_flops)
    yield Measured(cell=cell, chip=chip.name, chips=chips, examples_per_s=rate, mfu=mfu)
