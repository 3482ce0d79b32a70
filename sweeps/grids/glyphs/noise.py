"""study run glyphs-noise

Five corruptions of the training data x probability x loss on glyphs, three seeds: at B = 256, and
at 1,024 and 4,096, where the losses are closer without corruption, as they are where the paper
trains. Each corruption is drawn once. Two are also drawn anew at each visit of an example, because
the paper does not say which it uses.
"""

from __future__ import annotations

from typing import Any

from study.config import Cell, Corruption, Data
from sweeps.grids.glyphs.recipe import LOSSES, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZE = 256
TEXT, IMAGE_AND_TEXT = ("text",), ("image", "text")
PANELS: tuple[tuple[str, ...], ...] = (
    ("image",),
    TEXT,
    ("alignment",),
    IMAGE_AND_TEXT,
    ("image", "text", "alignment"),
)
P = 0.4  # the highest; of what is drawn anew the only one
# By batch size; a run at 4,096 takes twice as long as one at 1,024.
PROBABILITIES = {256: (0.2, P), 1024: (0.1, 0.2, P), 4096: (P,)}


def corruption(*, kinds: tuple[str, ...], p: float, resample: bool) -> Corruption:
    """Corruptions of `kinds`, each with probability `p`, fixed or drawn anew at each visit.

    Where it is drawn anew, a misplaced text comes from the same batch, as in the paper.
    """
    shares: dict[str, Any] = dict.fromkeys(kinds, p)
    window = BATCH_SIZE if resample else None
    return Corruption(resample_each_epoch=resample, window=window, **shares)


def corruptions(batch_size: int) -> list[Corruption]:
    """No corruption, then those of this batch size."""
    anew = (TEXT, IMAGE_AND_TEXT) if batch_size == BATCH_SIZE else ()
    return [
        Corruption(),
        *(
            corruption(kinds=kinds, p=p, resample=False)
            for kinds in PANELS
            for p in PROBABILITIES[batch_size]
        ),
        *(corruption(kinds=kinds, p=P, resample=True) for kinds in anew),
    ]


def cells() -> list[Cell]:
    return [
        glyphs_cell(
            batch_size=batch_size,
            loss=loss,
            seed=seed,
            data=Data(dataset="glyphs", text_length=16, corruption=corruption),
        )
        for seed in SEEDS
        for batch_size in PROBABILITIES
        for corruption in corruptions(batch_size)
        for loss in LOSSES
    ]


def study() -> Study:
    return glyphs_study(
        name="glyphs-noise",
        question="On glyphs: which loss is more robust to corrupted data, at which batch size?",
        cells=cells(),
        paper="Fig. 7",
    )
