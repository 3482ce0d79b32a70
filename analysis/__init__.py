"""From records to tables, intervals, figures and claims. Needs neither jax nor ray.

>>> import analysis
>>> analysis.frame.cells("runs", "glyphs")
>>> analysis.figures.draw_all("runs", "glyphs", "figures")
>>> print(analysis.claims.format_verdicts(analysis.claims.verdicts("runs", "glyphs")))

The parts load when first named, so that `import analysis` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis import claims, figures, frame, intervals, panels, paper, snapshot, style

__all__ = [
    "AnalysisError",
    "claims",
    "figures",
    "frame",
    "intervals",
    "panels",
    "paper",
    "snapshot",
    "style",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"analysis.{name}")
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")
