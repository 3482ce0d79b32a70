"""Fits to a study's numbers, each with a bootstrap interval that says when it is not identified."""

from __future__ import annotations

from analysis.fits.critical import Critical, critical_batch
from analysis.fits.noise import Draws, draws
from analysis.fits.saturation import FORMS, Saturation, saturation
from analysis.fits.targets import Reached, default_target, reached

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
