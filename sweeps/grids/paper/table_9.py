"""study run table-9

mSigLIP, recall by language and batch size (App. D): the cells of Table 2, and the scaled-up run
(*32k) of Sec. 4.6: 40B examples, 256 patches, 64 tokens. Fig. 8 draws the same cells (`fig-8`).
"""

from __future__ import annotations

import dataclasses

from study.config import Cell
from sweeps.grids.paper import assumptions, table_2, table_3
from sweeps.grids.paper.recipe import (
    BILLION,
    MSIGLIP,
    MULTILINGUAL,
    WEBLI_100,
    K,
    paper_study,
    siglip_cell,
)
from sweeps.study import Assumption, Study

ASSUMPTIONS = (
    *assumptions.MULTILINGUAL,
    Assumption(
        "scaled-up mSigLIP",
        "the factored embedding (K = 96) and the multilingual tokenizer of Sec. 4.3",
        "The paper says only that it is trained the same way as the English models.",
    ),
)


def cells() -> list[Cell]:
    scaled_up = siglip_cell(
        batch_size=32 * K,
        budget=40 * BILLION,
        model=dataclasses.replace(table_3.model("B", "B/16", 256), text=MSIGLIP.text),
        data=dataclasses.replace(WEBLI_100, text_length=table_3.TOKENS),
        evals=MULTILINGUAL,
    )
    return [*table_2.cells(), scaled_up]


def study() -> Study:
    return paper_study(
        name="table-9",
        question="mSigLIP: recall in each of 36 languages, by batch size",
        cells=cells(),
        paper="Table 9",
        assumptions=ASSUMPTIONS,
    )


def fig_8() -> Study:
    """study run fig-8: Table 9 as a figure."""
    return paper_study(
        name="fig-8",
        question="mSigLIP: which languages gain or lose with the batch?",
        cells=cells(),
        paper="Fig. 8",
        assumptions=ASSUMPTIONS,
    )
