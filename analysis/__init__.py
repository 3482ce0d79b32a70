"""Turns records into tables, intervals, figures and verdicts. Needs neither jax nor ray.

>>> import analysis
>>> analysis.cells("glyphs")  # a tidy frame, as are analysis.rows and analysis.verdicts
>>> fig = analysis.figures.fig_2("glyphs", root="runs")  # a matplotlib Figure
>>> analysis.figures.draw_all("runs", "glyphs", "figures")
>>> print(analysis.claims.format_verdicts(analysis.claims.judge_study("runs", "glyphs")))

The parts load when first used, so that `import analysis` is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis import advice, claims, figures, paper, report, stats
    from analysis.figures.plot import style
    from analysis.records import frame, snapshot
    from analysis.select import panels
    from analysis.stats import intervals
    from analysis.studies import cells, rows, verdicts

_PARTS = {
    "advice": "analysis.advice",
    "claims": "analysis.claims",
    "figures": "analysis.figures",
    "frame": "analysis.records.frame",
    "intervals": "analysis.stats.intervals",
    "panels": "analysis.select.panels",
    "paper": "analysis.paper",
    "report": "analysis.report",
    "snapshot": "analysis.records.snapshot",
    "stats": "analysis.stats",
    "style": "analysis.figures.plot.style",
}
_FUNCTIONS = {"cells", "rows", "verdicts"}  # of analysis.studies

__all__ = [
    "AnalysisError",
    "advice",
    "cells",
    "claims",
    "figures",
    "frame",
    "intervals",
    "panels",
    "paper",
    "report",
    "rows",
    "snapshot",
    "stats",
    "style",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(_PARTS[name])
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("analysis.studies"), name)
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
