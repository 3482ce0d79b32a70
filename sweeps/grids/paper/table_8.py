"""study run table-8

SigLiT, batch size x budget x loss (Sec. 4.1, App. A): 77 cells. 512 and 1k at three budgets, 2k to
256k at four, each with both losses, and sigmoid alone at 1024k and 18B examples.

The data set `lit` is made once from shards of image-text pairs, `imagenet` for its zero-shot:

    study data index DATA/lit --tokenizer c4_en.model
    study data import IMAGENET --out DATA/imagenet
    study data embed DATA/lit --checkpoint vit-g14.npz --out vit-g14-288 --resize bilinear

The last command is run for DATA/imagenet, too.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper.recipe import BILLION, LOSSES, MILLION, SIGMOID, K, paper_study, siglit_cell
from sweeps.study import Study

SMALL = (512, 1 * K)
BATCH_SIZES = (2 * K, 4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K, 256 * K)
BUDGETS = (450 * MILLION, 900 * MILLION, 3 * BILLION)
LONGEST = 18 * BILLION


def longest() -> list[Cell]:
    """The 18B column, which is Fig. 2 left."""
    both = [
        siglit_cell(batch_size=batch_size, examples=LONGEST, loss=loss)
        for batch_size in BATCH_SIZES
        for loss in LOSSES
    ]
    return [*both, siglit_cell(batch_size=1024 * K, examples=LONGEST, loss=SIGMOID)]


def cells() -> list[Cell]:
    shorter = [
        siglit_cell(batch_size=batch_size, examples=examples, loss=loss)
        for examples in BUDGETS
        for batch_size in (*SMALL, *BATCH_SIZES)
        for loss in LOSSES
    ]
    return [*shorter, *longest()]


def study() -> Study:
    return paper_study(
        name="table-8",
        question="SigLiT: which batch size, with which loss, at which budget?",
        cells=cells(),
        paper="Table 8",
        assumptions=(*assumed.SIGLIT, assumed.MILLION),
    )
