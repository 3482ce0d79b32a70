"""Fits to a study's numbers, each with a bootstrap interval that says when it is not identified."""

from __future__ import annotations

from analysis.stats.critical_batch import Critical, critical_batch
from analysis.stats.resample import Draws, draws
from analysis.stats.saturation import FORMS, Saturation, saturation
from analysis.stats.time_to_target import Reached, default_target, reached

__all__ = [
    "FORMS",
    "Critical",
    "Draws",
    "Reached",
    "Saturation",
    "critical_batch",
    "default_target",
    "draws",
    "reached",
    "saturation",
]
