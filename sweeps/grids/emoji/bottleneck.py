"""study run emoji-bottleneck

The token embedding through a bottleneck of K against the full one (paper Sec. 4.3: K = 96 of 768
costs half a percent), at B = 1,024, three seeds. The full one is in `emoji-batch-size` too.
"""

from __future__ import annotations

import dataclasses

from study.config import Cell, MeanPoolText
from sweeps.grids.emoji.recipe import LONG, SEEDS, SIGLIT, WIDTH, emoji_cell, emoji_study
from sweeps.study import Study

BATCH_SIZE = 1024
BOTTLENECKS = (12, 48, None)  # 12 is an eighth of the width, as in the paper


def cells() -> list[Cell]:
    return [
        emoji_cell(
            batch_size=BATCH_SIZE,
            seed=seed,
            examples=LONG,
            model=dataclasses.replace(
                SIGLIT, text=MeanPoolText(width=WIDTH, bottleneck=bottleneck)
            ),
        )
        for seed in SEEDS
        for bottleneck in BOTTLENECKS
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-bottleneck",
        question="In 36 languages: what does a bottleneck in the token embedding cost?",
        cells=cells(),
        paper="Sec. 4.3",
    )
