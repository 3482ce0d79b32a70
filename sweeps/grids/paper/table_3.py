"""study run table-3 --only budget.examples=40000000000 && study run table-3

The scaled-up models (Sec. 4.6): B, L and So400m at 256 patches, then from each the other
resolutions of Table 3: 8 cells. The second part starts from files written from the first.
"""

from __future__ import annotations

from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper import scaled_up as scaled
from sweeps.grids.paper.recipe import paper_study
from sweeps.study import Study


def study() -> Study:
    return paper_study(
        name="table-3",
        question="How good do SigLIP models become when they are scaled up?",
        cells=scaled.cells(),
        paper="Table 3",
        assumptions=(*assumed.SIGLIP, *scaled.ASSUMPTIONS),
    )
