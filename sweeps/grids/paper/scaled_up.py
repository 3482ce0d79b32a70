"""The scaled-up models of Sec. 4.6: 40B examples at 32k, 256 patches, 64 tokens; then other
resolutions with 5B examples more.
"""

from __future__ import annotations

import dataclasses

from study.config import Cell, Model, TextTransformer, ViT
from sweeps.grids.paper.recipe import (
    ADAFACTOR,
    BILLION,
    MULTILINGUAL,
    TABLE_3,
    WEBLI_100,
    WEBLI_EN,
    K,
    siglip_cell,
)
from sweeps.study import Assumption

TOKENS = 64
# Name, image tower, the size that it is trained at, and the sizes that it is taken to.
SIZES = (
    ("B", "B/16", 256, (224, 384, 512)),
    ("L", "L/16", 256, (384,)),
    ("So400m", "So400m/14", 224, (384,)),
)

ASSUMPTIONS = (
    Assumption(
        "So400m patches",
        "14 pixels, trained at 224, taken to 384",
        "Table 3 has it at 729 patches, 27 by 27; at 224 it has the stated 256.",
    ),
    Assumption(
        "other resolutions",
        "batch 32k, cosine, 200M examples of warm-up, optimizer state anew",
        "Stated are 5B examples, a hundredth of the rate and no decay.",
    ),
    Assumption(
        "init",
        "siglip-B-256.npz and so on, under the data root",
        "Written from the last checkpoint of the first run (study.interop.big_vision.write).",
    ),
    Assumption(
        "ReaL",
        "left out",
        "Its images have several right labels, which zero-shot here does not score.",
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
    """The first runs, and from each the runs at other resolutions."""
    found = []
    data = dataclasses.replace(WEBLI_EN, text_length=TOKENS)
    for name, patches, first, others in SIZES:
        found.append(
            siglip_cell(
                batch_size=32 * K,
                examples=40 * BILLION,
                model=model(name, patches, first),
                data=data,
                evals=TABLE_3,
            )
        )
        for size in others:
            init = f"siglip-{name}-{first}.npz"
            found.append(
                siglip_cell(
                    batch_size=32 * K,
                    examples=5 * BILLION,
                    model=dataclasses.replace(model(name, patches, size), init=init),
                    data=data,
                    evals=TABLE_3,
                    optimizer=dataclasses.replace(
                        ADAFACTOR, learning_rate=ADAFACTOR.learning_rate / 100, weight_decay=0.0
                    ),
                )
            )
    return found


def msiglip(*, batch_size: int) -> Cell:
    """The multilingual B of the same kind (Table 9, *32k)."""
    text = TextTransformer(variant="B", bottleneck=96)
    return siglip_cell(
        batch_size=batch_size,
        examples=40 * BILLION,
        model=dataclasses.replace(model("B", "B/16", 256), text=text),
        data=dataclasses.replace(WEBLI_100, text_length=TOKENS),
        evals=MULTILINGUAL,
    )
