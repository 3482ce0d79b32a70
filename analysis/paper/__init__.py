"""What the paper prints: its numbers, and where its text and its own numbers disagree.

The numbers are part of the package (`reference.csv`).
"""

from __future__ import annotations

from analysis.paper.as_cells import cells, run_spread
from analysis.paper.errata import TextCheck, check_text, format_checks
from analysis.paper.reference import fig_2, provenance, reference
from analysis.select.benchmarks import BENCHMARKS, benchmark, find_metric

__all__ = [
    "BENCHMARKS", "TextCheck", "benchmark", "cells", "check_text", "fig_2", "find_metric",
    "format_checks", "provenance", "reference", "run_spread",
]  # fmt: skip
