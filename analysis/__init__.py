"""Turns records into tables, intervals, figures and verdicts. Needs neither jax nor ray.

>>> import analysis
>>> analysis.frame.cells("runs", "glyphs")
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

__all__ = [
    "AnalysisError",
    "advice",
    "claims",
    "figures",
    "frame",
    "intervals",
    "panels",
    "paper",
    "report",
    "snapshot",
    "stats",
    "style",
]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(_PARTS[name])
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
