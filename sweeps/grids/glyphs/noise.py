"""study run glyphs-noise

Five corruptions of the training data x probability x loss on glyphs at B = 256, three seeds; drawn
once for good and drawn anew at each visit, side by side, because the paper does not say which.
"""

from __future__ import annotations

from typing import Any

from study.config import Cell, Corruption, Data, Loss
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


def corrupted(*, kinds: tuple[str, ...], p: float, redraw: bool) -> Corruption:
    """Misplaced texts come from the same batch where they are drawn anew, as in the paper."""
    window = BATCH_SIZE if redraw else None
    shares: dict[str, Any] = dict.fromkeys(kinds, p)
    return Corruption(resample_each_epoch=redraw, window=window, **shares)


def cell(*, loss: Loss, seed: int, corrupt: Corruption) -> Cell:
    data = Data(dataset="glyphs", text_length=16, corruption=corrupt)
    return glyphs_cell(batch_size=BATCH_SIZE, loss=loss, seed=seed, data=data)


def cells() -> list[Cell]:
    kinds = [Corruption()] + [
        corrupted(kinds=panel, p=p, redraw=redraw)
        for panel in PANELS
        for p in PROBABILITIES
        for redraw in (False, True)
    ]
    return [
        cell(loss=loss, seed=seed, corrupt=corrupt)
        for seed in SEEDS
        for corrupt in kinds
        for loss in LOSSES
    ]


def study() -> Study:
    return glyphs_study(
        name="glyphs-noise",
        question="On glyphs: which loss stands corrupted data better, fixed or drawn anew?",
        cells=cells(),
        paper="Fig. 7",
    )
