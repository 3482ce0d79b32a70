"""study run fig-5

beta2 and stability (Sec. 4.7): 0.999 against 0.95, by loss and by gradient and update norms.
"""

from __future__ import annotations

import dataclasses

from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import ADAFACTOR, BILLION, K, paper_study, siglip_cell
from sweeps.study import Assumption, Study

ASSUMPTIONS = (
    *assumptions.SIGLIP,
    Assumption(
        "cell",
        "the SigLIP set-up of Table 5 (B/16, English WebLI, Adafactor) at 32k",
        "Model, batch size, data and optimizer of the plotted run are not stated; the text says "
        "that even Base models are unstable at large batch sizes.",
    ),
    Assumption("examples", "5B", "The last tick of the figure's axis."),
)


def study() -> Study:
    return paper_study(
        name="fig-5",
        question="Does beta2 = 0.95 stabilise training at large batch sizes?",
        cells=[
            siglip_cell(
                batch_size=32 * K,
                budget=5 * BILLION,
                optimizer=dataclasses.replace(ADAFACTOR, b2=b2),
            )
            for b2 in (0.999, 0.95)
        ],
        paper="Fig. 5",
        assumptions=ASSUMPTIONS,
    )
