"""study run glyphs-noise-causes

Why corrupted data have the effect on glyphs that glyphs-noise shows, three seeds. Two possible
causes are tested at p = 0.4: the number of distinct examples (`glyphs-1view` has a quarter of them,
so each is seen seven times instead of twice), and the learning rate (half and twice the value that
was tuned on clean data for each loss).
"""

from __future__ import annotations

from study.config import Cell, Corruption, Data
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.data import ONE_VIEW
from sweeps.grids.glyphs.noise import BATCH_SIZE, IMAGE_AND_TEXT, TEXT, P, corruption
from sweeps.grids.glyphs.recipe import LOSSES, SEEDS, glyphs_cell, glyphs_study, tuned_rate
from sweeps.study import Assumption, Study

RATE_MULTIPLIERS = (0.5, 1.0, 2.0)  # of the rate that was tuned on clean data


def corruptions(*panels: tuple[str, ...]) -> list[Corruption]:
    """No corruption, then each panel's: fixed, and drawn anew."""
    return [Corruption()] + [
        corruption(kinds=kinds, p=P, resample=resample)
        for kinds in panels
        for resample in (False, True)
    ]


def cells() -> list[Cell]:
    cells = []
    for seed in SEEDS:
        for loss in LOSSES:
            cells += [
                glyphs_cell(
                    batch_size=BATCH_SIZE,
                    loss=loss,
                    seed=seed,
                    data=Data(dataset=dataset, text_length=16, corruption=corruption),
                )
                for dataset in ("glyphs", ONE_VIEW)
                for corruption in corruptions(TEXT, IMAGE_AND_TEXT)
            ]
            cells += [
                glyphs_cell(
                    batch_size=BATCH_SIZE,
                    loss=loss,
                    seed=seed,
                    data=Data(text_length=16, corruption=corruption),
                    learning_rate=multiplier * tuned_rate(BATCH_SIZE, loss),
                )
                for multiplier in RATE_MULTIPLIERS
                for corruption in corruptions(IMAGE_AND_TEXT)
            ]
    return list(dict.fromkeys(cells))


def study() -> Study:
    fewer_examples = Assumption(
        "fewer examples",
        "one drawing of each character in each font instead of four",
        "The frozen tower is fitted to what there is, so it is a little worse there too.",
    )
    return glyphs_study(
        name="glyphs-noise-causes",
        question="On glyphs: does the effect of corruption depend on learning rate or repetition?",
        cells=cells(),
        paper="Fig. 7",
        prepare="sweeps.grids.glyphs.data:one_view",
        assumptions=(*glyphs.ASSUMPTIONS, fewer_examples),
    )
