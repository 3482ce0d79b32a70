"""study run beyond && study report beyond

What the paper does not ask, on glyphs: which settings must follow the batch size, how large a batch
is worth it as training goes on, and which pairs to meet. The map of examples against pairs is part
of `glyphs`.
"""

from __future__ import annotations

from sweeps.grids.glyphs.recipe import glyphs_study
from sweeps.registry import builtin_studies, load_study
from sweeps.study import Study, merge_cells

STUDIES = ("scaling-rules", "critical-batch", "batch-warmup", "pairs-beyond")


def study() -> Study:
    parts = [load_study(name) for name in STUDIES if name in builtin_studies()]
    return glyphs_study(
        name="beyond",
        question="What must change with the batch size, and which pairs are worth meeting?",
        cells=merge_cells(parts),
        assumptions=tuple(dict.fromkeys(a for part in parts for a in part.assumptions)),
        prepare="sweeps.grids.glyphs.data:everything",
    )
