"""study run table-4

Initial bias and temperature (Sec. 4.9): five cells at 8k and 900M examples.
"""

from __future__ import annotations

from study.config import Sigmoid
from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper.recipe import MILLION, TABLE_4, K, paper_study, siglip_cell
from sweeps.study import Study

# (b, t = exp(t')): t' is log 10 or log 1
STARTS: tuple[tuple[float | None, float], ...] = (
    (None, 10.0), (-10.0, 10.0), (-10.0, 1.0), (0.0, 10.0), (0.0, 1.0)
)  # fmt: skip


def study() -> Study:
    return paper_study(
        name="table-4",
        question="Where should bias and temperature start?",
        cells=[
            siglip_cell(
                batch_size=8 * K,
                examples=900 * MILLION,
                loss=Sigmoid(b_init=b, t_init=t),
                evals=TABLE_4,
            )
            for b, t in STARTS
        ],
        paper="Table 4",
        assumptions=assumed.SIGLIP,
    )
