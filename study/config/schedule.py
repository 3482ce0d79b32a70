"""The schedule of the learning rate and the weight decay, which both are multiplied by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from study.config.budget import to_steps
from study.config.cell import Cell


def schedule(cell: Cell) -> Callable[[Any], np.ndarray]:
    """The 0..1 factor, float32, at the cell's steps from 0; takes a number or an array.

    Linear warm-up, then decay over the steps after it. A cooldown multiplies it by a line that
    reaches zero at the last step.
    """
    total, start = cell.schedule_steps, cell.schedule_start
    warmup, timescale, cooldown = (
        to_steps(cell.optimizer, name, batch_size=cell.batch_size, total_steps=total)
        for name in ("warmup", "timescale", "cooldown")
    )

    def factor(step: Any) -> np.ndarray:
        step = np.asarray(step, np.float64) + start
        after = np.maximum(step - warmup, 0)
        share = np.minimum(after / max(1, total - warmup), 1)
        match cell.optimizer.schedule:
            case "cosine":
                value = 0.5 * (1 + np.cos(np.pi * share))
            case "linear":
                value = 1 - share
            case "rsqrt":
                value = 1 / np.sqrt(1 + after / timescale)
            case "constant":
                value = np.ones_like(share)
        if warmup:
            value *= np.minimum(step / warmup, 1)
        if cooldown:
            value *= np.clip((total - step) / cooldown, 0, 1)
        return np.asarray(value, np.float32)

    return factor
