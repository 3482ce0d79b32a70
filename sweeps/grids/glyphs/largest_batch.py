"""study run largest-batch

The paper's headline batch on one machine: SigLiT on glyphs at B = 1,048,576, all pairs of each
step, in bounded memory. A step has 1.1e12 pairs and takes almost half an hour on two cores,
whatever the towers are, so the embeddings are narrow and there are two steps.
"""

from __future__ import annotations

import dataclasses

from study.config import Adam, CachedImage, Execution
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.data import NARROW
from sweeps.grids.glyphs.recipe import glyphs_cell, glyphs_study
from sweeps.study import Assumption, Study

BATCH_SIZE, STEPS = 2**20, 2
# No warm-up: its first step has a rate of zero and would be one of only two.
OPTIMIZER = Adam(b2=0.95, weight_decay=1e-4, clip_norm=1.0)
MODEL = dataclasses.replace(
    glyphs.SIGLIT,
    image=CachedImage(embeddings=f"hog-lda-{NARROW}", dim=NARROW),
    embed_dim=NARROW,
)


def study() -> Study:
    study = glyphs_study(
        name="largest-batch",
        question="Does a batch of a million train on two cores, and in how much memory?",
        cells=[
            glyphs_cell(
                batch_size=BATCH_SIZE,
                examples=STEPS * BATCH_SIZE,
                model=MODEL,
                factor=1e-2,
                optimizer=OPTIMIZER,
            )
        ],
        paper="Fig. 2 left",
        prepare="sweeps.grids.glyphs.data:narrow",
        assumptions=(
            Assumption("width", str(NARROW), "The products of a tile take most of the time at 96."),
            Assumption("steps", "2", "What the 3 hours of `glyphs` leave, which takes 2."),
            Assumption("optimizer", "Adam, b2 = 0.95, clipped at 1, no warm-up", "Two steps."),
        ),
    )
    # Without microbatches the activations of the towers alone would take 9 GiB.
    execution = Execution(cores=2, microbatch=8192)
    return dataclasses.replace(study, execution=execution, group="", seconds=None)
