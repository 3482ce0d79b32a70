"""study run table-4

Initial bias and temperature (Sec. 4.9): five cells at 8k and 900M examples.
"""

from __future__ import annotations

from study.config import Sigmoid
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import MILLION, TABLE_4, K, paper_study, siglip_cell
from sweeps.study import Study

# (b, t); the paper gives t' = log t, so log 10 or log 1.
INITS: tuple[tuple[float | None, float], ...] = (
    (None, 10.0), (-10.0, 10.0), (-10.0, 1.0), (0.0, 10.0), (0.0, 1.0)
)  # fmt: skip


def study() -> Study:
    return paper_study(
        name="table-4",
        question="Which initial bias and temperature are best?",
        cells=[
            siglip_cell(
                batch_size=8 * K,
                budget=900 * MILLION,
                loss=Sigmoid(b_init=b, t_init=t),
                evals=TABLE_4,
            )
            for b, t in INITS
        ],
        paper="Table 4",
        assumptions=assumptions.SIGLIP,
    )
