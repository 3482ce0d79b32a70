"""study run glyphs-pretrained

SigLIP on glyphs from a pretrained image tower, with and without its weight decay, beside a random
start, three seeds: zero-shot and few-shot curves. The tower is pretrained once (about two minutes)
and lies under the data root, see sweeps/grids/glyphs/pretrained.py.
"""

from __future__ import annotations

import dataclasses

from study.config import Adam, Cell, Eval, FewShot, ParamGroup, ValLoss, ZeroShot
from sweeps.grids.glyphs.pretrained import FILE, SIGLIP
from sweeps.grids.glyphs.recipe import MIDDLE, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Assumption, Study

BATCH_SIZE = 256
# As much beside the rate as the paper's 1e-4 beside 1e-3 over 146 thousand steps would be over
# these two thousand: otherwise a run this short decays nothing.
DECAY = 1e-3
EVALS: tuple[Eval, ...] = (
    ZeroShot(split="val_font"),
    ZeroShot(split="test_font", every_percent=12.5),
    FewShot(split="test_font", shots=1, seeds=1, every_percent=12.5),
    ValLoss(split="val_font", every_percent=10),
)


def cell(*, seed: int, image: ParamGroup | None) -> Cell:
    """From random towers, or with an image tower that is pretrained and treated so."""
    model = SIGLIP if image is None else dataclasses.replace(SIGLIP, init=f"{FILE}:img")
    optimizer = Adam(
        b2=0.95, weight_decay=DECAY, warmup_percent=5, clip_norm=1.0, image=image or ParamGroup()
    )
    return glyphs_cell(
        batch_size=BATCH_SIZE,
        seed=seed,
        examples=2 * MIDDLE,
        model=model,
        optimizer=optimizer,
        evals=EVALS,
    )


def study() -> Study:
    parts = (None, ParamGroup(lr_mult=0.1), ParamGroup(lr_mult=0.1, wd_mult=0.0))
    return glyphs_study(
        name="glyphs-pretrained",
        question="On glyphs: does weight decay spoil a pretrained image tower?",
        cells=[cell(seed=seed, image=image) for seed in SEEDS for image in parts],
        paper="Fig. 4",
        prepare="sweeps.grids.glyphs.pretrained:prepare",
        assumptions=(
            Assumption(
                "pretraining",
                "SigLIP on the same glyphs, another seed and text tower",
                "There is no second data set; the paper's tower has seen labelled images.",
            ),
            Assumption(
                "few-shot",
                "one example of each of 7,336 classes",
                "Ten would need 4 GB of targets.",
            ),
            Assumption(
                "weight decay",
                "0.001",
                "Ten times the paper's, because a run has 1/70 of its steps.",
            ),
        ),
    )
