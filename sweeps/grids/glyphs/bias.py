"""study run glyphs-bias

Initial bias and temperature on glyphs by batch size, three seeds: the five rows of Table 4, and
the prior log-odds of a positive pair.
"""

from __future__ import annotations

from typing import Literal

from study.config import Sigmoid
from sweeps.grids.glyphs.recipe import SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZES = (64, 256, 1024, 4096)
INITS: tuple[tuple[float | Literal["prior"] | None, float], ...] = (
    (None, 10.0), (-10.0, 10.0), (-10.0, 1.0), (0.0, 10.0), (0.0, 1.0), ("prior", 10.0)
)  # fmt: skip


def study() -> Study:
    return glyphs_study(
        name="glyphs-bias",
        question="On glyphs: which initial bias and temperature are best at each batch size?",
        cells=[
            glyphs_cell(batch_size=batch_size, loss=Sigmoid(b_init=b, t_init=t), seed=seed)
            for seed in SEEDS
            for batch_size in BATCH_SIZES
            for b, t in INITS
        ],
        paper="Table 4",
    )
