"""study run glyphs-beta2

beta2 = 0.95 against 0.999 on glyphs, three seeds: an image transformer of twelve blocks, at a high
rate and without clipping, because the towers of the other grids are too shallow to be unstable. The
result is in the loss and in the gradient and update norms.
"""

from __future__ import annotations

from study.config import Adam, Eval, MeanPoolText, Model, ValLoss, ViT, ZeroShot
from sweeps.grids.glyphs.recipe import SEEDS, SHORT, glyphs_cell, glyphs_study
from sweeps.study import Assumption, Study

DEPTH = 12
FACTOR = 3e-3  # at 1e-2 nothing is learned with either beta2 (loss 6.543 at B = 256)
BATCH_SIZES = (64, 256)  # at 1024 this budget has 64 steps, too few to learn anything
B2 = (0.95, 0.999)
MODEL = Model(
    image=ViT(variant="mu/8", image_size=24, pool="gap", depth=DEPTH),
    text=MeanPoolText(width=64),
    embed_dim=64,
)
EVALS: tuple[Eval, ...] = (
    ZeroShot(split="val_font"),
    ZeroShot(split="test_font"),
    ValLoss(split="val_font", every_percent=5),
)


def study() -> Study:
    return glyphs_study(
        name="glyphs-beta2",
        question="On glyphs: does beta2 = 0.95 stabilise a deep transformer?",
        cells=[
            glyphs_cell(
                batch_size=batch_size,
                seed=seed,
                examples=SHORT,
                model=MODEL,
                factor=FACTOR,
                optimizer=Adam(b2=b2, weight_decay=1e-4, warmup_percent=5, clip_norm=None),
                evals=EVALS,
            )
            for seed in SEEDS
            for batch_size in BATCH_SIZES
            for b2 in B2
        ],
        paper="Fig. 5",
        assumptions=(
            Assumption(
                "towers",
                "12 blocks of width 32 each",
                "Deep enough for steps to go wrong, and quick.",
            ),
            Assumption("clip_norm", "none", "A clipped gradient would hide what is looked for."),
        ),
    )
