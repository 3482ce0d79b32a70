"""Fits to a study's numbers, each with a bootstrap interval that says when it is not identified."""

from __future__ import annotations

from analysis.stats.critical_batch import CriticalBatch, fit_critical_batch
from analysis.stats.resample import MeanDraws, draw_means
from analysis.stats.saturation import FORMS, Saturation, fit_saturation
from analysis.stats.surface import ERROR_FORMS, GridCells, Surface, fit_surface, hold_out
from analysis.stats.time_to_target import Crossing, default_target, first_crossing

__all__ = [
    "ERROR_FORMS",
    "FORMS",
    "CriticalBatch",
    "Crossing",
    "GridCells",
    "MeanDraws",
    "Saturation",
    "Surface",
    "default_target",
    "draw_means",
    "first_crossing",
    "fit_critical_batch",
    "fit_saturation",
    "fit_surface",
    "hold_out",
]
