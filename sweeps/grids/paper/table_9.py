"""study run table-9

mSigLIP, recall by language and batch size (App. D): the cells of Table 2, and the scaled-up run
(*32k) of Sec. 4.6: 40B examples, 256 patches, 64 tokens.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper import table_2
from sweeps.grids.paper.recipe import K, paper_study
from sweeps.grids.paper.scaled_up import msiglip
from sweeps.study import Assumption, Study

SCALED = Assumption(
    "scaled-up mSigLIP",
    "the factored embedding (K = 96) and the multilingual tokenizer of Sec. 4.3",
    "The paper says the same way as the English models, and no more.",
)


def cells() -> list[Cell]:
    return [*table_2.cells(), msiglip(batch_size=32 * K)]


def study() -> Study:
    return paper_study(
        name="table-9",
        question="mSigLIP: recall in each of 36 languages, by batch size",
        cells=cells(),
        paper="Table 9",
        assumptions=(*assumed.MULTILINGUAL, SCALED),
    )
