"""Measured speed in place of assumed speed, from the records of finished cells."""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.records.snapshot import MANIFEST
from study.config import Cell, CellError, from_dict
from study.config.hardware import TOPOLOGIES, Slice, get_chip, get_slice, list_slices
from study.models.flops import Flops, step_flops
from study.models.parameters import count_parameters
from study.planning.fits import RunSetting
from study.records.metrics_log import parse, read_rows
from study.records.record import read_json
from sweeps.planning.roofline import step_time
from sweeps.study import StudyError

RATE = "train/examples_per_s"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The median speed in one cell's record.

    Attributes:
      mfu: model FLOPs (towers and loss, without recomputation) over time, chips and peak.
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
    """Measured speeds, and the median share of the peak (MFU) for each type of chip."""

    measured: tuple[Measurement, ...]

    @functools.cached_property
    def mfu(self) -> dict[str, float]:
        return {chip: float(np.median(shares)) for chip, shares in self._shares.items()}

    def seconds(
        self, cell: Cell, flops: Flops, machine: Slice, *, without: Measurement | None = None
    ) -> float | None:
        """Seconds of one step.

        The measured time if this cell ran on as many of these chips, else its operations at the
        median MFU of the chip.

        Arguments:
          without: a measurement to leave out.

        Returns:
          None for a chip that was not measured.
        """
        chip = machine.chip.name
        for m in self._runs.get((cell.id, chip, machine.chips), ()):
            if m is not without:
                return m.step_seconds
        if without is None or without.chip != chip:
            share = self.mfu.get(chip)
        else:
            shares = self._shares[chip]
            others = np.delete(shares, np.searchsorted(shares, without.mfu))
            share = float(np.median(others)) if others.size else None
        if share is None:
            return None
        return flops.model / (machine.chips * machine.chip.peak_flops * share)

    @functools.cached_property
    def _runs(self) -> dict[tuple[str, str, int], list[Measurement]]:
        """The measurements of each cell, by its id, its chip and the number of chips."""
        runs = defaultdict(list)
        for m in self.measured:
            runs[m.cell.id, m.chip, m.chips].append(m)
        return dict(runs)

    @functools.cached_property
    def _shares(self) -> dict[str, np.ndarray]:
        """The measured shares of the peak by chip, ascending."""
        shares = defaultdict(list)
        for m in self.measured:
            shares[m.chip].append(m.mfu)
        return {chip: np.sort(shares[chip]) for chip in sorted(shares)}


def load_calibration(records: str | Path) -> Calibration:
    """Measurements from all records below a folder, or from a snapshot.

    Raises:
      StudyError: no record has a speed on hardware in `study.config.hardware`.
    """
    root = Path(records)
    measured = tuple(_measured(root)) if root.is_dir() else ()
    if not measured:
        raise StudyError(
            f"--calibrate {records}: no record there has a speed on known hardware; give the "
            "--root of a sweep, or one study's folder in it"
        )
    return Calibration(measured=measured)


def compare_predictions(calibration: Calibration) -> list[dict[str, Any]]:
    """For each measured cell, its speed and the predictions without it.

    One prediction is by the assumed share of the peak, one by that of the other cells on its chip
    (if there are any). Records do not say how a cell ran; no recomputation is assumed.
    """
    rows = []
    for m in calibration.measured:
        machine, channels = _machine(m), channels_of(m.cell)
        flops = step_flops(m.cell, channels=channels)
        # The optimizer and the sum of gradients are a few per cent; the vocabulary is not known.
        time = step_time(
            m.cell, flops, machine, RunSetting(), count_parameters(m.cell, 2000, channels=channels)
        )
        seconds = calibration.seconds(m.cell, flops, machine, without=m)
        calibrated = (
            {} if seconds is None else {"calibrated_examples_per_s": _rate(m.cell, seconds)}
        )
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
                **calibrated,
            }
        )
    return rows


def _rate(cell: Cell, step_seconds: float) -> float:
    return float(f"{cell.batch_size / step_seconds:.5g}")


def _machine(m: Measurement) -> Slice:
    if m.chip in TOPOLOGIES:
        return next(s for s in list_slices(m.chip) if s.chips >= m.chips)
    return get_slice(m.chip if m.chips == 1 else f"{m.chip}x{m.chips}")


def channels_of(cell: Cell) -> int:
    """Channels of the images that a cell trains on."""
    return 1 if cell.data.dataset == "glyphs" else 3


def _measured(root: Path) -> Iterator[Measurement]:
    if (root / MANIFEST).exists():
        from analysis.records.frame import open_snapshot

        snapshot = open_snapshot(str(root))
        for study in snapshot.studies():
            for record in snapshot.records(study):
                if record.about is not None:
                    yield from _of(record.about, record.read_rows())
        return
    for path in sorted(root.rglob("cell.json")):
        if (about := read_json(path)) is not None:
            yield from _of(about, parse(read_rows(path.parent)).rows)


def _of(about: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[Measurement]:
    """The measurement in a record, if it has one."""
    try:
        cell = from_dict(about["cell"])
        devices = about["devices"]
    except (KeyError, CellError):
        return
    chip = get_chip(str(devices.get("kind")))
    rates = [row[RATE] for row in rows if row.get(RATE)]
    if chip is None or not rates:
        return
    # The first row includes the start of the run.
    rate = statistics.median(rates[1:] or rates)
    chips = max(1, int(devices.get("count", 1)) // chip.devices)
    if chip.kind == "cpu":
        chips = 1  # its devices are shares of one machine
    per_example = step_flops(cell, channels=channels_of(cell)).model / cell.batch_size
    mfu = per_example * rate / (chips * chip.peak_flops)
    yield Measurement(cell=cell, chip=chip.name, chips=chips, examples_per_s=rate, mfu=mfu)
