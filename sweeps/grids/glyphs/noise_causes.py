"""study run glyphs-noise-causes

Why corrupted data do on glyphs what they do (see glyphs-noise), three seeds. Two causes are tried
at p = 0.4: how many distinct examples there are, four times fewer in `glyphs-1view`, which are
then seen seven times each instead of twice; and the learning rate, half and twice what was tuned
on clean data, for each loss.
"""

from __future__ import annotations

from study.config import Cell, Corruption, Data
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.data import ONE_VIEW
from sweeps.grids.glyphs.noise import BATCH_SIZE, corrupted
from sweeps.grids.glyphs.recipe import LOSSES, RATES, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Assumption, Study

P = 0.4
TIMES = (0.5, 1.0, 2.0)  # of the rate that was tuned on clean data
BOTH = ("image", "text")


def corruptions(*panels: tuple[str, ...]) -> list[Corruption]:
    return [Corruption()] + [
        corrupted(kinds=panel, p=P, redraw=redraw) for panel in panels for redraw in (False, True)
    ]


def cells() -> list[Cell]:
    found = []
    for seed in SEEDS:
        for loss in LOSSES:
            for dataset in ("glyphs", ONE_VIEW):
                for corrupt in corruptions(("text",), BOTH):
                    data = Data(dataset=dataset, text_length=16, corruption=corrupt)
                    found.append(
                        glyphs_cell(batch_size=BATCH_SIZE, loss=loss, seed=seed, data=data)
                    )
            for times in TIMES:
                for corrupt in corruptions(BOTH):
                    data = Data(text_length=16, corruption=corrupt)
                    factor = times * RATES[loss.kind]
                    found.append(
                        glyphs_cell(
                            batch_size=BATCH_SIZE, loss=loss, seed=seed, data=data, factor=factor
                        )
                    )
    return list(dict.fromkeys(found))


def study() -> Study:
    one = Assumption(
        "fewer examples",
        "one drawing of each character in each font instead of four",
        "The frozen tower is fitted to what there is, so it is a little worse there too.",
    )
    return glyphs_study(
        name="glyphs-noise-causes",
        question="On glyphs: is what corruption does to the losses a matter of rate or repetition?",
        cells=cells(),
        paper="Fig. 7",
        prepare="sweeps.grids.glyphs.data:one_view",
        assumptions=(*glyphs.ASSUMPTIONS, one),
    )
