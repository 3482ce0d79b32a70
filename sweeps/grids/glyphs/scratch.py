"""study run glyphs-scratch

SigLIP on glyphs, both towers from scratch, batch size x loss, three seeds: Fig. 2 middle.

With few large patches and wide towers it learns twice as much as with the smallest ViT.
Learning rates are the best of `glyphs-scratch-lr`, for each loss at each batch size, by zero-shot
accuracy on the validation font. In percent, half the best rate / the best / twice that:

| B    | sigmoid                   | softmax                   |
|------|---------------------------|---------------------------|
| 64   | 0.002: 15.6 / 19.3 / 16.7 | 0.002: 15.0 / 16.2 / 14.4 |
| 256  | 0.004: 19.1 / 22.7 / 22.2 | 0.002: 14.7 / 18.2 / 16.8 |
| 1024 | 0.008: 16.5 / 17.7 / 10.4 | 0.008: 16.7 / 18.2 / 17.0 |
"""

from __future__ import annotations

from typing import Any

from study.config import Adam, Cell, Loss, MeanPoolText, Model, ViT
from sweeps.grids.glyphs.recipe import (
    LONG,
    LOSSES,
    SEEDS,
    glyphs_cell,
    glyphs_study,
)
from sweeps.study import Assumption, Study

SIGLIP = Model(
    image=ViT(variant="nu/12", image_size=24, pool="gap"),
    text=MeanPoolText(width=256),
    embed_dim=256,
)
OPTIMIZER = Adam(b2=0.95, weight_decay=1e-4, warmup_percent=50, clip_norm=1.0)
EXAMPLES = LONG
# By loss and batch size. At 4,096 a run has 256 steps, too few to judge.
RATES = {
    "sigmoid": {64: 2e-3, 256: 4e-3, 1024: 8e-3},
    "softmax": {64: 2e-3, 256: 2e-3, 1024: 8e-3},
}


def scratch_cell(
    *,
    batch_size: int,
    loss: Loss = LOSSES[0],
    examples: int = EXAMPLES,
    learning_rate: float | None = None,
    **settings: Any,
) -> Cell:
    """A cell from scratch, by default at the tuned rate; `settings` as for `glyphs_cell`."""
    return glyphs_cell(
        batch_size=batch_size,
        loss=loss,
        examples=examples,
        learning_rate=learning_rate or RATES[loss.kind][batch_size],
        **{"model": SIGLIP, "optimizer": OPTIMIZER, **settings},
    )


def study() -> Study:
    return glyphs_study(
        name="glyphs-scratch",
        question="From scratch on glyphs: which batch size, with which loss?",
        cells=[
            scratch_cell(batch_size=batch_size, loss=loss, seed=seed)
            for seed in SEEDS
            for loss in LOSSES
            for batch_size in RATES[loss.kind]
        ],
        paper="Fig. 2 middle, Table 5",
        assumptions=(
            Assumption(
                "towers",
                "one block of width 128 on four patches; mean of word pieces of width 256",
                "Width and few large patches learned more for the time than small patches and "
                "depth.",
            ),
            Assumption(
                "learning rate",
                "by loss and batch size",
                "The best on the validation font in `glyphs-scratch-lr`, on another seed.",
            ),
            Assumption(
                "optimizer",
                "Adam, b2 = 0.95, clipped at 1, warm-up in half of the run",
                "A high rate learns most and needs a long warm-up.",
            ),
        ),
    )
