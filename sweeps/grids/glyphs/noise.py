"""study run glyphs-noise

Five corruptions of the training data x probability x loss on glyphs at B = 256, three seeds. Each
corruption is drawn once and, side by side, drawn anew at each visit of an example, because the
paper does not say which it uses.
"""

from __future__ import annotations

from typing import Any

from study.config import Cell, Corruption, Data
from sweeps.grids.glyphs.recipe import LOSSES, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZE = 256
PANELS: tuple[tuple[str, ...], ...] = (
    ("image",),
    ("text",),
    ("alignment",),
    ("image", "text"),
    ("image", "text", "alignment"),
)
PROBABILITIES = (0.2, 0.4)


def corruption(*, kinds: tuple[str, ...], p: float, resample: bool) -> Corruption:
    """Corruptions of `kinds`, each with probability `p`, fixed or drawn anew at each visit.

    Where it is drawn anew, a misplaced text comes from the same batch, as in the paper.
    """
    shares: dict[str, Any] = dict.fromkeys(kinds, p)
    window = BATCH_SIZE if resample else None
    return Corruption(resample_each_epoch=resample, window=window, **shares)


def cells() -> list[Cell]:
    corruptions = [Corruption()] + [
        corruption(kinds=kinds, p=p, resample=resample)
        for kinds in PANELS
        for p in PROBABILITIES
        for resample in (False, True)
    ]
    return [
        glyphs_cell(
            batch_size=BATCH_SIZE,
            loss=loss,
            seed=seed,
            data=Data(dataset="glyphs", text_length=16, corruption=corruption),
        )
        for seed in SEEDS
        for corruption in corruptions
        for loss in LOSSES
    ]


def study() -> Study:
    return glyphs_study(
        name="glyphs-noise",
        question="On glyphs: which loss is more robust to corrupted data, fixed or drawn anew?",
        cells=cells(),
        paper="Fig. 7",
    )
