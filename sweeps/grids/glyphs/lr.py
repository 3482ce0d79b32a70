"""study run glyphs-lr

Learning rate x batch size x loss with a frozen tower, on a seed that is used nowhere else. It
determines RATES in `sweeps.grids.glyphs.recipe`, by accuracy on the validation font.

Each loss has its own optimum at each batch size, which falls as the budget grows; LONG decides for
itself and longer runs, MIDDLE for shorter ones. 4 and 16,384 are at MIDDLE alone and decide no rate
of another grid. Rates are factors of two apart and bracket the best.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.glyphs.recipe import (
    LONG,
    LOSSES,
    MIDDLE,
    TUNING_SEED,
    glyphs_cell,
    glyphs_study,
)
from sweeps.study import Study


def doubled(lowest: float, count: int) -> tuple[float, ...]:
    return tuple(lowest * 2**k for k in range(count))


# Rates by examples and batch size.
TRIED: dict[int, dict[int, tuple[float, ...]]] = {
    LONG: {
        16: doubled(6.25e-4, 4),
        64: doubled(1.25e-3, 4),
        256: doubled(5e-3, 3),
        1024: doubled(5e-3, 4),
        4096: doubled(1e-2, 4),
    },
    MIDDLE: {
        4: doubled(6.25e-4, 3),
        16: doubled(6.25e-4, 5),
        64: doubled(1.25e-3, 5),
        256: doubled(2.5e-3, 5),
        1024: doubled(5e-3, 5),
        4096: doubled(1e-2, 5),
        16_384: doubled(2e-2, 3),
    },
}


def frozen() -> list[Cell]:
    return [
        glyphs_cell(
            batch_size=batch_size,
            loss=loss,
            examples=examples,
            learning_rate=rate,
            seed=TUNING_SEED,
        )
        for examples, by_size in TRIED.items()
        for batch_size, rates in by_size.items()
        for rate in rates
        for loss in LOSSES
    ]


def study() -> Study:
    return glyphs_study(
        name="glyphs-lr",
        question="Which learning rate suits each loss, and does it grow with the batch?",
        cells=frozen(),
        paper="App. C",
    )
