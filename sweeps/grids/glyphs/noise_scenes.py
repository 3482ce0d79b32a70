"""study run glyphs-noise-scenes

Does the effect of corruption in glyphs-noise depend on images of single characters? The same at
p = 0.4 on scenes of two glyphs next to each other, each with a unique caption; three seeds. Scenes
have no classes, so quality is measured by retrieval among the scenes of the test fonts.
"""

from __future__ import annotations

import dataclasses

from study.config import CachedImage, Cell, Data, Retrieval, ValLoss
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.data import SCENES, SCENES_DIM, SCENES_TOWER
from sweeps.grids.glyphs.noise import BATCH_SIZE, IMAGE_AND_TEXT, TEXT
from sweeps.grids.glyphs.noise_causes import corruptions
from sweeps.grids.glyphs.recipe import LOSSES, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Assumption, Study

MODEL = dataclasses.replace(
    glyphs.SIGLIT, image=CachedImage(embeddings=SCENES_TOWER, dim=SCENES_DIM), embed_dim=SCENES_DIM
)
EVALS = (
    Retrieval(split="val_font"),
    Retrieval(split="test_font"),
    ValLoss(split="val_font", every_percent=10),
)


def cells() -> list[Cell]:
    return [
        glyphs_cell(
            batch_size=BATCH_SIZE,
            loss=loss,
            seed=seed,
            model=MODEL,
            data=Data(dataset=SCENES, text_length=32, corruption=corruption),
            evals=EVALS,
        )
        for seed in SEEDS
        for corruption in corruptions(TEXT, IMAGE_AND_TEXT)
        for loss in LOSSES
    ]


def study() -> Study:
    two_glyphs = Assumption(
        "two glyphs",
        "the frozen tower of single glyphs on each half of a scene",
        "It is fitted to classes of characters, which scenes do not have.",
    )
    return glyphs_study(
        name="glyphs-noise-scenes",
        question="On scenes of two glyphs: is sigmoid more robust to corrupted data?",
        cells=cells(),
        paper="Fig. 7",
        prepare="study.data.glyphs.scenes:prepare",
        assumptions=(*glyphs.ASSUMPTIONS, two_glyphs),
    )
