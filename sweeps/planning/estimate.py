"""How long each cell of a study takes on its slice, before any of them has run.

What `study plan --no-compile` says of a step, times the steps. An order is made from it, so it need
not be right: a factor that all cells share does not matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from study.config.cell import CellError
from study.config.hardware import HardwareError
from sweeps.planning.fit_search import cache_dir
from sweeps.planning.plan import plan
from sweeps.study import Study, StudyError


def estimate_seconds(study: Study, cells: Collection[str]) -> dict[str, float]:
    """Seconds by cell id, for those of `cells` (ids); empty where the plan has no word for all.

    Times of some cells beside guesses for others would be no order.
    """
    part = dataclasses.replace(study, cells=tuple(c for c in study.cells if c.id in cells))
    try:
        found = plan(part, cache=cache_dir(), no_compile=True)
    except (CellError, HardwareError, StudyError):  # said when such a cell trains
        return {}
    return {item.cell.id: item.step_seconds * item.cell.steps for item in found}
