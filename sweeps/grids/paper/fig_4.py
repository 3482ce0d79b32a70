"""study run fig-4

SigLIP from a pretrained image tower, with and without its weight decay (Sec. 4.5): 3 cells.

Put the public AugReg ViT-B/16 in big_vision's layout at DATA/vit-b16-augreg.npz.
"""

from __future__ import annotations

import dataclasses

from study.config import Adafactor, Cell, Eval, FewShot, Model, ParamGroup, TextTransformer, ViT
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import (
    ADAFACTOR,
    MILLION,
    VALIDATION,
    K,
    paper_study,
    siglip_cell,
    zero_shot,
)
from sweeps.study import Assumption, Study

EXAMPLES = 2_400 * MILLION
EVERY_PERCENT = 100 * 100 / 2_400  # every 100M examples, as on the figure's axis

RANDOM = Model(
    image=ViT(variant="B/16", image_size=224, pool="tok"),
    text=TextTransformer(variant="B"),
    embed_dim=768,
    dtype="bfloat16",
)
PRETRAINED = dataclasses.replace(RANDOM, init="vit-b16-augreg.npz:img")
EVALS: tuple[Eval, ...] = (
    zero_shot("imagenet", "val", every_percent=EVERY_PERCENT),
    FewShot(dataset="imagenet", split="val", crop=0.875, every_percent=EVERY_PERCENT),
    VALIDATION,
)
ASSUMPTIONS = (
    *assumptions.SIGLIP,
    Assumption(
        "checkpoint",
        "AugReg ViT-B/16 pretrained on ImageNet-21k",
        "The code base's default of that name; the paper only says AugReg.",
    ),
    Assumption(
        "pool", "a class token, in all three cells", "AugReg checkpoints have no attention pooling."
    ),
    Assumption(
        "10-shot", "ridge regression, l2 = 1024, 3 draws", "The code base's few-shot evaluator."
    ),
)


def cell(*, model: Model, optimizer: Adafactor) -> Cell:
    return siglip_cell(
        batch_size=16 * K, budget=EXAMPLES, model=model, optimizer=optimizer, evals=EVALS
    )


def fine_tuned(*, decay: float) -> Cell:
    """Starts from the pretrained tower, at a tenth of the rate and `decay` times the decay."""
    image = ParamGroup(lr_mult=0.1, wd_mult=decay)
    return cell(model=PRETRAINED, optimizer=dataclasses.replace(ADAFACTOR, image=image))


def study() -> Study:
    return paper_study(
        name="fig-4",
        question="Does weight decay harm a pretrained image tower?",
        cells=[
            cell(model=RANDOM, optimizer=ADAFACTOR),
            fine_tuned(decay=1.0),
            fine_tuned(decay=0.0),
        ],
        paper="Fig. 4",
        assumptions=ASSUMPTIONS,
        hardware="16 TPUv4 chips, 3 days per cell",
    )
