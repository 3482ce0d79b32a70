"""The figures that the paper has not: fits, targets, maps and what a run costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.figures.extra import (
    efficiency,
    loss_gap,
    memory,
    pairs_map,
    rate_by_batch,
    saturation,
    starts,
    to_target,
    trajectories,
)

BEYOND: Mapping[str, Any] = {
    "saturation": saturation,
    "loss_gap": loss_gap,
    "to_target": to_target,
    "pairs_map": pairs_map,
    "rate_by_batch": rate_by_batch,
    "starts": starts,
    "trajectories": trajectories,
    "efficiency": efficiency,
    "memory": memory,
}
