"""Fits to a study's numbers, each with a bootstrap interval that says when it is not identified."""

from __future__ import annotations

from analysis.stats.best_rate import BestRate, RateExponent, fit_best_rate, fit_rate_exponent
from analysis.stats.critical_batch import (
    CRITICAL_FORMS,
    CriticalBatch,
    QualityGrid,
    choose_targets,
    draw_quality,
    examples_to,
    fit_critical_batch,
    fit_trend,
)
from analysis.stats.held_out import hold_out
from analysis.stats.pareto import pareto_front
from analysis.stats.resample import MeanDraws, draw_means
from analysis.stats.saturation import FORMS, Saturation, fit_saturation
from analysis.stats.slope import fit_slope
from analysis.stats.surface import ERROR_FORMS, GridCells, Surface, fit_surface

__all__ = [
    "CRITICAL_FORMS",
    "ERROR_FORMS",
    "FORMS",
    "BestRate",
    "CriticalBatch",
    "GridCells",
    "MeanDraws",
    "QualityGrid",
    "RateExponent",
    "Saturation",
    "Surface",
    "choose_targets",
    "draw_means",
    "draw_quality",
    "examples_to",
    "fit_best_rate",
    "fit_critical_batch",
    "fit_rate_exponent",
    "fit_saturation",
    "fit_slope",
    "fit_surface",
    "fit_trend",
    "hold_out",
    "pareto_front",
]
