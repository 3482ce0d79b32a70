"""study run glyphs-beta2

beta2 = 0.95 against 0.999 on glyphs, three seeds: an image transformer of twelve blocks, at a high
rate and without clipping, because the towers of the other grids have nothing to be unstable in.
Loss, gradient and update norms are what it is run for.
"""

from __future__ import annotations

from study.config import Adam, Cell, Eval, MeanPoolText, Model, ValLoss, ViT, ZeroShot
from sweeps.grids.glyphs.recipe import SEEDS, SHORT, glyphs_cell, glyphs_study
from sweeps.study import Assumption, Study

DEPTH = 12
FACTOR = 3e-3  # with 1e-2 the loss stayed at that of no signal, 6.543 at B = 256, for either beta2
BATCH_SIZES = (64, 256)  # of 1024 a budget this short has 64 steps, in which nothing is learned
BETA2 = (0.95, 0.999)
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


def cell(*, batch_size: int, b2: float, seed: int) -> Cell:
    return glyphs_cell(
        batch_size=batch_size,
        seed=seed,
        examples=SHORT,
        model=MODEL,
        factor=FACTOR,
        optimizer=Adam(b2=b2, weight_decay=1e-4, warmup_percent=5, clip_norm=None),
        evals=EVALS,
    )


def study() -> Study:
    return glyphs_study(
        name="glyphs-beta2",
        question="On glyphs: does beta2 = 0.95 steady a deep transformer?",
        cells=[
            cell(batch_size=batch_size, b2=b2, seed=seed)
            for seed in SEEDS
            for batch_size in BATCH_SIZES
            for b2 in BETA2
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
