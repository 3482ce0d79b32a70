"""study run table-8

SigLiT, batch size x budget x loss (Sec. 4.1, App. A): 77 cells. 512 and 1k at three budgets, 2k to
256k at four, each with both losses; 1024k with sigmoid only, at 18B examples. Fig. 2 left and
Fig. 3 are parts of it (`fig-2-left`, `fig-3`).

Prepare the data set `lit` once, from shards of image-text pairs, and `imagenet` for zero-shot:

    study data index DATA/lit --tokenizer c4_en.model
    study data import IMAGENET --out DATA/imagenet
    study data embed DATA/lit --checkpoint vit-g14.npz --out vit-g14-288 --resize bilinear

Run the last command for DATA/imagenet, too.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import BILLION, LOSSES, MILLION, K, paper_study, siglit_cell
from sweeps.study import Study

SMALL = (512, 1 * K)
BATCH_SIZES = (2 * K, 4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K, 256 * K)
BUDGETS = (450 * MILLION, 900 * MILLION, 3 * BILLION)
LONGEST = 18 * BILLION
ASSUMPTIONS = (*assumptions.SIGLIT, assumptions.MILLION)


def cells() -> list[Cell]:
    return [
        *(
            siglit_cell(batch_size=batch_size, budget=examples, loss=loss)
            for examples in BUDGETS
            for batch_size in (*SMALL, *BATCH_SIZES)
            for loss in LOSSES
        ),
        *(
            siglit_cell(batch_size=batch_size, budget=LONGEST, loss=loss)
            for batch_size in BATCH_SIZES
            for loss in LOSSES
        ),
        siglit_cell(batch_size=1024 * K, budget=LONGEST),
    ]


def study() -> Study:
    return paper_study(
        name="table-8",
        question="SigLiT: which batch size, with which loss, at which budget?",
        cells=cells(),
        paper="Table 8",
        assumptions=ASSUMPTIONS,
    )


def fig_2_left() -> Study:
    """study run fig-2-left: the 18B column, 17 cells."""
    return paper_study(
        name="fig-2-left",
        question="SigLiT: how far does quality grow with the batch?",
        cells=[cell for cell in cells() if cell.budget.examples == LONGEST],
        paper="Fig. 2 left",
        assumptions=ASSUMPTIONS,
    )


def fig_3() -> Study:
    """study run fig-3: the rows 8k and 256k, 16 cells."""
    return paper_study(
        name="fig-3",
        question="SigLiT: how long must a run be before a large batch pays?",
        cells=[cell for cell in cells() if cell.batch_size in (8 * K, 256 * K)],
        paper="Fig. 3",
        assumptions=assumptions.SIGLIT,
    )
