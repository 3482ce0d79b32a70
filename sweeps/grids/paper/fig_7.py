"""study run fig-7

Noise (Sec. 4.10, App. E): five corruptions x probability x loss, M towers from scratch: 42 cells.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from study.config import Cell, Corruption, Loss, Model, TextTransformer, ViT
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import (
    ADAFACTOR,
    LOSSES,
    MILLION,
    WEBLI_EN,
    K,
    paper_study,
    siglip_cell,
)
from sweeps.study import Assumption, Study

BATCH_SIZE, EXAMPLES = 16 * K, 3_600 * MILLION
MODEL = Model(
    image=ViT(variant="M/16", image_size=224),
    text=TextTransformer(variant="M"),
    embed_dim=512,
    dtype="bfloat16",
)
OPTIMIZER = dataclasses.replace(ADAFACTOR, warmup_examples=None, warmup_percent=10)
SINGLE, COMBINED = (0.1, 0.2, 0.3, 0.4), (0.05, 0.1, 0.15, 0.2)
PANELS: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...] = (
    (("image",), SINGLE),
    (("text",), SINGLE),
    (("alignment",), SINGLE),
    (("image", "text"), COMBINED),
    (("image", "text", "alignment"), COMBINED),
)

ASSUMPTIONS = (
    *(a for a in assumptions.SIGLIP if a is not assumptions.WARMUP),
    Assumption(
        "data",
        "English WebLI at 224, 16 tokens",
        "Not restated; the set-up of Sec. 4.2, with M towers.",
    ),
    Assumption(
        "probabilities",
        "0.1 to 0.4 for one corruption, 0.05 to 0.2 for combined ones, in four steps",
        "The figure's ticks (0.2, 0.4 and 0.1, 0.2) and points between; the grid is not given.",
    ),
    Assumption(
        "data.corruption.resample_each_epoch",
        "drawn anew at each visit",
        "Not stated; texts shuffled in a batch can only be drawn anew. `glyphs-noise` has both.",
    ),
    Assumption("embed_dim", "512", "The width of the towers, as for B."),
)


def cell(*, loss: Loss, kinds: tuple[str, ...] = (), p: float = 0.0) -> Cell:
    corruption = Corruption()
    if kinds:
        shares: dict[str, Any] = dict.fromkeys(kinds, p)
        corruption = Corruption(resample_each_epoch=True, window=BATCH_SIZE, **shares)
    return siglip_cell(
        batch_size=BATCH_SIZE,
        budget=EXAMPLES,
        loss=loss,
        model=MODEL,
        optimizer=OPTIMIZER,
        data=dataclasses.replace(WEBLI_EN, corruption=corruption),
    )


def study() -> Study:
    return paper_study(
        name="fig-7",
        question="Which loss is more robust to corrupted data?",
        cells=[
            *(cell(loss=loss) for loss in LOSSES),
            *(
                cell(loss=loss, kinds=kinds, p=p)
                for kinds, probabilities in PANELS
                for p in probabilities
                for loss in LOSSES
            ),
        ],
        paper="Fig. 7",
        assumptions=ASSUMPTIONS,
    )
