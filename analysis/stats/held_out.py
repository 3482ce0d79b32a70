"""The largest budget as a surface predicts it that was fitted to all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.stats.surface import ERROR_FORMS, PARAMETERS, GridCells, Surface, fit_surface

ENOUGH_TO_PREDICT = 2 * PARAMETERS  # cells


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The cells of the largest budget, and the fit to all others that predicts them.

    Attributes:
      surface: of the forms the one that fits the other budgets best.
      cells: those of the largest budget.
    """

    surface: Surface
    cells: GridCells

    @property
    def examples(self) -> float:
        return float(self.cells.examples_N.max())

    @property
    def rms(self) -> float:
        """Of the errors of the prediction, in points."""
        return float(np.sqrt((self._miss_N**2).mean()))

    @property
    def worst(self) -> float:
        """The largest error of the prediction, in points."""
        return float(np.abs(self._miss_N).max())

    @property
    def enough(self) -> float:
        """The smallest batch size that is predicted within the tolerance of the best."""
        return self.surface.optimum(self.examples).enough.batch

    @property
    def _miss_N(self) -> np.ndarray:
        return self.surface.error(self.cells.batch_N, self.examples) - self.cells.error_N


def hold_out(cells: GridCells, *, draws: int = 0) -> HeldOut | None:
    """Predicts the cells of the largest budget from all others, which also choose the form.

    Args:
      draws: bootstrap fits of the chosen form.

    Returns: None if fewer than two budgets or `ENOUGH_TO_PREDICT` cells are left. Fewer cells fit
      equally well with parameters whose predictions differ by points.
    """
    last_N = cells.examples_N == cells.examples_N.max()
    rest = cells.take(~last_N)
    if len(rest) < ENOUGH_TO_PREDICT or len(np.unique(rest.examples_N)) < 2:
        return None
    fits = [fit for form in ERROR_FORMS if (fit := fit_surface(rest, form, draws=0))]
    best = min(fits, key=lambda fit: fit.cost)
    surface = fit_surface(rest, best.form, draws=draws) if draws else best
    assert surface is not None
    return HeldOut(surface=surface, cells=cells.take(last_N))
