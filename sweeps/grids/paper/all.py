"""study run paper

Every run of the paper once: the cells of all its figures and tables.
"""

from __future__ import annotations

from sweeps.grids.paper.recipe import paper_study
from sweeps.registry import load_study
from sweeps.study import Study, merge_cells

STUDIES = (
    *("fig-2-left", "fig-2-middle", "fig-2-right", "fig-3", "fig-4", "fig-5", "fig-6", "fig-7"),
    *("fig-8", "table-1", "table-2", "table-3", "table-4", "table-5", "table-6", "table-7"),
    *("table-8", "table-9"),
)


def study() -> Study:
    parts = [load_study(name) for name in STUDIES]
    return paper_study(
        name="paper",
        question="What does the paper train, all figures and tables together?",
        cells=merge_cells(parts),
        paper="all",
        assumptions=tuple(dict.fromkeys(a for part in parts for a in part.assumptions)),
    )
