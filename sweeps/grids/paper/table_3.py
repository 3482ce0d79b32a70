"""study run table-3 --only budget.examples=40000000000 && study run table-3

The scaled-up models (Sec. 4.6): B, L and So400m for 40B examples at 32k, 256 patches and 64 tokens,
then from each the other resolutions of Table 3 with 5B examples more: 8 cells. The runs of the
second part start from files that are written from the checkpoints of the first.
"""

from __future__ import annotations

import dataclasses

from study.config import Cell, Model, TextTransformer, ViT
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import (
    ADAFACTOR,
    BILLION,
    TABLE_3,
    WEBLI_EN,
    K,
    paper_study,
    siglip_cell,
)
from sweeps.study import Assumption, Study

TOKENS = 64
# Name, image tower, image size of the first run, image sizes of the runs that start from it.
SIZES = (
    ("B", "B/16", 256, (224, 384, 512)),
    ("L", "L/16", 256, (384,)),
    ("So400m", "So400m/14", 224, (384,)),
)
FINE_TUNING = dataclasses.replace(
    ADAFACTOR, learning_rate=ADAFACTOR.learning_rate / 100, weight_decay=0.0
)

ASSUMPTIONS = (
    *assumptions.SIGLIP,
    Assumption(
        "So400m patches",
        "14 pixels; first run at 224, second at 384",
        "Table 3 lists it at 729 patches, 27 by 27; at 224 it has the stated 256.",
    ),
    Assumption(
        "other resolutions",
        "batch 32k, cosine, 200M examples of warm-up, new optimizer state",
        "The paper states 5B examples, a hundredth of the rate and no decay.",
    ),
    Assumption(
        "init",
        "siglip-B-256.npz and so on, under the data root",
        "Written from the last checkpoint of the first run (study.interop.big_vision.write).",
    ),
    Assumption(
        "ReaL",
        "left out",
        "Its images have several correct labels, which zero-shot here does not score.",
    ),
)


def model(variant: str, patches: str, image_size: int) -> Model:
    tower = ViT(variant=patches, image_size=image_size)
    return Model(
        image=tower,
        text=TextTransformer(variant=variant),
        embed_dim=tower.size.width,
        dtype="bfloat16",
    )


def cells() -> list[Cell]:
    """For each model its first run, then the runs that start from it."""
    cells = []
    data = dataclasses.replace(WEBLI_EN, text_length=TOKENS)
    for name, patches, first, others in SIZES:
        cells.append(
            siglip_cell(
                batch_size=32 * K,
                budget=40 * BILLION,
                model=model(name, patches, first),
                data=data,
                evals=TABLE_3,
            )
        )
        for size in others:
            start = dataclasses.replace(
                model(name, patches, size), init=f"siglip-{name}-{first}.npz"
            )
            cells.append(
                siglip_cell(
                    batch_size=32 * K,
                    budget=5 * BILLION,
                    model=start,
                    data=data,
                    evals=TABLE_3,
                    optimizer=FINE_TUNING,
                )
            )
    return cells


def study() -> Study:
    return paper_study(
        name="table-3",
        question="How good do SigLIP models become when they are scaled up?",
        cells=cells(),
        paper="Table 3",
        assumptions=ASSUMPTIONS,
    )
