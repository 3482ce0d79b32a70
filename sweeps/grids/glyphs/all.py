"""study run glyphs && study figures glyphs && study claims glyphs

Our own study: the cells of every `glyphs-*` grid, at most four hours on two cores. Cells that two
grids share are trained once.
"""

from __future__ import annotations

from sweeps.grids.glyphs.recipe import glyphs_study
from sweeps.registry import load_study
from sweeps.study import Assumption, Study, merge_cells

STUDIES = (
    *("glyphs-lr", "glyphs-batch-size", "glyphs-constant-rate", "glyphs-scratch-lr"),
    *("glyphs-scratch", "glyphs-composition", "glyphs-bias"),
    *("glyphs-beta2", "glyphs-noise", "glyphs-noise-causes", "glyphs-noise-scenes"),
    *("glyphs-pretrained", "glyphs-examples-vs-pairs", "glyphs-pairs-lr"),
)
LANGUAGES = Assumption(
    "languages",
    "English alone",
    "Unicode names characters in English only, and no dependency ships names in other languages.",
)


def study() -> Study:
    parts = [load_study(name) for name in STUDIES]
    return glyphs_study(
        name="glyphs",
        question="What of the paper holds on glyphs, on two cores?",
        cells=merge_cells(parts),
        paper="Fig. 2 to 7, Tables 4, 5, 8",
        assumptions=(*dict.fromkeys(a for part in parts for a in part.assumptions), LANGUAGES),
        prepare="sweeps.grids.glyphs.data:everything",
    )
