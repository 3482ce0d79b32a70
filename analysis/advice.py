"""Which batch size for how many examples: the surface of a study or of the paper, in words.

>>> print(format_advice(advise_paper("table-8", 18e9)))
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import AnalysisError
from analysis.paper import as_cells
from analysis.records import frame
from analysis.select import panels
from analysis.select.fields import TOP1
from analysis.stats.held_out import ENOUGH_TO_PREDICT, HeldOut, hold_out
from analysis.stats.intervals import group_means
from analysis.stats.resample import draw_means
from analysis.stats.saturation import FORMS, Saturation, fit_saturation
from analysis.stats.surface import (
    DRAWS,
    ERROR_FORMS,
    PARAMETERS,
    TOLERANCE,
    BatchInterval,
    GridCells,
    Optimum,
    Surface,
    fit_surface,
)

TABLES = {"table-8": as_cells.SIGLIT, "table-5": as_cells.SIGLIP}
MIN_STEPS = 64  # of a cell; shorter ones are mostly warm-up
Values = Mapping[tuple[int, float], Sequence[float]]  # quality by batch size and examples


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The batch size for a number of examples, and what it rests on.

    Attributes:
      optimum: of the form that fits best, `surface`, at the examples asked for.
      by_budget: the same at every measured budget.
      rivals: the other forms, best first, with their optimum at the examples asked for.
      held_out: None if too few cells are left without the largest budget.
      one_budget: the fits to the nearest budget alone, which know nothing of other budgets.
    """

    source: str
    loss: str
    optimum: Optimum
    by_budget: tuple[Optimum, ...]
    surface: Surface
    rivals: tuple[tuple[Surface, Optimum], ...]
    held_out: HeldOut | None
    nearest: float
    one_budget: tuple[Saturation, ...]

    @property
    def power_of_two(self) -> int | None:
        """The power of two nearest to the batch that is enough, if there is such a batch."""
        batch = self.optimum.enough.batch
        return 2 ** round(math.log2(batch)) if 0 < batch < math.inf else None

    @property
    def extrapolation(self) -> float:
        """How many times the examples are outside of the budgets; 1 inside."""
        budgets, examples = [one.examples for one in self.by_budget], self.optimum.examples
        return max(1.0, examples / max(budgets), min(budgets) / examples)


def advise_paper(
    table: str, examples: float, *, loss: str = "sigmoid", draws: int = DRAWS
) -> Advice:
    """Advice from the paper's Table 8 (SigLiT) or 5 (both towers from scratch).

    Raises:
      AnalysisError: there is no such table or loss.
    """
    if table not in TABLES:
        raise AnalysisError(f"no cells of the paper in {table!r}; choose from {', '.join(TABLES)}")
    return _advise(table, loss, paper_values(table, loss), examples, draws)


def advise_study(
    root: str | Path,
    study: str,
    examples: float,
    *,
    loss: str = "sigmoid",
    metric: str = TOP1,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> Advice:
    """Advice from a study's finished cells, see `advise_cells`.

    Args:
      planned, records: as for `frame.cells`.

    Raises:
      AnalysisError: the study does not exist, or has too few cells.
    """
    cells = frame.cells(root, study, planned=planned, records=records)
    return advise_cells(cells, study, examples, loss=loss, metric=metric)


def advise_cells(
    cells: pd.DataFrame,
    source: str,
    examples: float,
    *,
    loss: str = "sigmoid",
    metric: str = TOP1,
    draws: int = DRAWS,
) -> Advice:
    """Advice from the finished cells of a frame, at several budgets and batch sizes.

    Of the image towers, cached or trained, the one with most batch sizes and budgets counts.

    Args:
      source: their name.
      metric: the column of quality, in percent.
      draws: bootstrap fits behind the intervals.

    Raises:
      AnalysisError: there are too few.
    """
    values = values_of(tried_cells(cells, loss, metric), metric)
    return _advise(source, loss, values, examples, draws)


def paper_values(table: str, loss: str) -> Values:
    """Quality in a table of `TABLES`, in percent."""
    cells = as_cells.cells()
    fields = {**TABLES[table], "loss.kind": loss, "loss.t_init": 10.0}
    mine = cells[np.logical_and.reduce([cells[field] == value for field, value in fields.items()])]
    sizes = mine.groupby("examples")["batch_size"].nunique()
    mine = mine[mine["examples"].isin(sizes.index[sizes > 1])]  # Table 4 has one batch size
    return values_of(mine, TOP1, "examples")


def tried_cells(cells: pd.DataFrame, loss: str, metric: str) -> pd.DataFrame:
    """The finished cells that advice rests on, see `advise_cells`."""
    grids = [cells[:0]]
    for image in ("cached", "vit"):
        done = [panel.done for panel in panels.by_budget(cells, image=image).values()]
        if done:
            both = pd.concat(done)
            grids.append(both[(both["loss.kind"] == loss) & (both["steps"] >= MIN_STEPS)])
    return max(grids, key=lambda grid: len(values_of(grid, metric)))


def grid_cells(values: Values) -> GridCells:
    """Means over seeds, with the noise of Table 7 where each cell has one seed."""
    pooled, (noise, _) = group_means(values), as_cells.run_noise()
    keys = sorted(values)
    return GridCells(
        batch_N=np.array([batch for batch, _ in keys], float),
        examples_N=np.array([budget for _, budget in keys], float),
        error_N=100 - np.array([pooled.means[key] for key in keys]),
        seeds_N=np.array([pooled.counts[key] for key in keys]),
        noise=math.sqrt(pooled.variance) if pooled.dof else noise,
    )


def values_of(cells: pd.DataFrame, metric: str, examples: str = "budget.examples") -> Values:
    """Quality of cells at each batch size and number of examples.

    Args:
      metric, examples: the columns of quality and of examples seen.
    """
    if metric not in cells:
        return {}
    known = cells[cells[metric].notna()]
    groups = known.groupby(["batch_size", examples])[metric]
    return {(int(b), float(d)): list(map(float, group)) for (b, d), group in groups}


def _advise(source: str, loss: str, values: Values, examples: float, draws: int) -> Advice:
    cells = grid_cells(values)
    budgets = sorted({budget for _, budget in values})
    fits = [fit for form in ERROR_FORMS if (fit := fit_surface(cells, form, draws=0))]
    if not fits or len(budgets) < 2:
        raise AnalysisError(
            f"{source} has {len(cells)} finished {loss} cells of {MIN_STEPS} steps or more, "
            f"budgets: {len(budgets)}; a surface needs {PARAMETERS + 1} cells at two budgets"
        )
    chosen, *others = sorted(fits, key=lambda fit: fit.cost)
    surface = fit_surface(cells, chosen.form, draws=draws)
    assert surface is not None
    nearest = min(budgets, key=lambda budget: abs(math.log(budget / examples)))
    at_nearest = {b: values[b, d] for b, d in sorted(values) if d == nearest}
    alone = draw_means(at_nearest, spread=as_cells.run_noise())
    return Advice(
        source=source,
        loss=loss,
        optimum=surface.optimum(examples),
        by_budget=tuple(surface.optimum(budget) for budget in budgets),
        surface=surface,
        rivals=tuple((other, other.optimum(examples)) for other in others),
        held_out=hold_out(cells),
        nearest=nearest,
        one_budget=tuple(
            one for form in FORMS if (one := fit_saturation(alone, form, tolerance=TOLERANCE))
        ),
    )


def format_advice(advice: Advice) -> str:
    """The advice in a few lines."""
    optimum, surface, held = advice.optimum, advice.surface, advice.held_out
    enough, best = optimum.enough, optimum.best
    seen = short(optimum.examples)
    lines = [f"{advice.source}, {advice.loss}, {seen} examples: {_choice(advice)}"]
    lines.append(
        f"That is the smallest batch within {TOLERANCE:g} points of the lowest error, "
        f"{optimum.error:.1f} %, which is at {_format(best)}."
    )
    budgets = [one.examples for one in advice.by_budget]
    smallest, largest = surface.cells.batches_at(optimum.examples)
    grid = f"the batch sizes at {short(advice.nearest)} examples, {smallest:,.0f} to {largest:,.0f}"
    if advice.extrapolation > 1:
        lines.append(
            f"Extrapolated: {seen} examples are {advice.extrapolation:.3g} times outside of the "
            f"budgets, {short(budgets[0])} to {short(budgets[-1])}."
        )
    else:
        names = {"the batch that is enough": enough, "the best batch": best}
        outside = [name for name, one in names.items() if not one.identified]
        if outside:
            lines.append(f"Not identified: {' and '.join(outside)}; the interval leaves {grid}.")
        else:
            lines.append(f"Identified: both intervals are within {grid}.")
    lines.append(
        f"Fit: {ERROR_FORMS[surface.form].formula}; {len(surface.cells)} cells of {MIN_STEPS} "
        f"steps or more, residuals {surface.rms:.2f} points rms, {surface.worst:.1f} at most."
    )
    if held is None:
        lines.append(
            f"Not tested on a held-out budget: that takes {ENOUGH_TO_PREDICT} cells at two others."
        )
    else:
        lines.append(
            f"Fitted without {short(held.examples)}, {held.surface.form} misses the cells there by "
            f"{held.rms:.2f} points rms, {held.worst:.1f} at most; {_size(held.enough)} would be "
            "enough there."
        )
    rivals = [
        f"{_size(at.enough.batch)} by {fit.form} ({fit.rms:.2f})" for fit, at in advice.rivals
    ]
    lines.append(f"Other forms (residuals, points rms): {', '.join(rivals)}.")
    if advice.one_budget:
        alone = [f"{fit} by {fit.form}" for fit in advice.one_budget]
        lines.append(f"From {short(advice.nearest)} examples alone: {'; '.join(alone)}.")
    rows = [
        f"  {short(one.examples):>6}  enough {_format(one.enough)}; best {_format(one.best)}"
        for one in advice.by_budget
    ]
    return "\n".join([*lines, "By budget (* not identified):", *rows])


def to_json(advice: Advice) -> str:
    """The advice as a JSON object; an end without a number is null."""
    surface = advice.surface
    content = {
        "source": advice.source,
        "loss": advice.loss,
        "batch": advice.power_of_two,
        "tolerance": TOLERANCE,
        "extrapolation": advice.extrapolation,
        "optimum": asdict(advice.optimum),
        "by_budget": [asdict(one) for one in advice.by_budget],
        "surface": {
            "form": surface.form,
            "formula": ERROR_FORMS[surface.form].formula,
            "parameters": surface.parameters,
            "cells": len(surface.cells),
            "rms": surface.rms,
            "worst": surface.worst,
        },
        "held_out": (held := advice.held_out)
        and {
            "form": held.surface.form,
            **{name: getattr(held, name) for name in ("examples", "rms", "worst", "enough")},
        },
        "rivals": [
            {"form": fit.form, "rms": fit.rms, "enough": at.enough.batch, "best": at.best.batch}
            for fit, at in advice.rivals
        ],
        "one_budget": [
            {
                "examples": advice.nearest,
                "form": fit.form,
                **{name: getattr(fit, name) for name in ("batch", "low", "high", "identified")},
            }
            for fit in advice.one_budget
        ],
    }
    return json.dumps(_finite(content), indent=1)


def short(count: float) -> str:
    """A count of examples or a batch size in three digits.

    >>> short(18e9), short(34191)
    ('18B', '34.2k')
    """
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.3g}"


def _choice(advice: Advice) -> str:
    enough = advice.optimum.enough
    if advice.power_of_two is None:
        return "no batch size can be named; quality still changes at the ends of the grid."
    return (
        f"a batch of {advice.power_of_two:,} (estimate {short(enough.batch)}, "
        f"95 % {_size(enough.low)} to {_size(enough.high)})."
    )


def _format(one: BatchInterval) -> str:
    mark = "" if one.identified else "*"
    return f"{_size(one.batch)}{mark} ({_size(one.low)} to {_size(one.high)})"


def _size(batch: float) -> str:
    if batch == 0:
        return "the smallest"
    return "the largest" if math.isinf(batch) else short(batch)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
