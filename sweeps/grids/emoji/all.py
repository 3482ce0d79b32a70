"""study run emoji

Our own study in 36 languages: the cells of every `emoji-*` grid. Cells that two grids share are
trained once.
"""

from __future__ import annotations

from sweeps.grids.emoji.recipe import emoji_study
from sweeps.registry import load_study
from sweeps.study import Study, merge_cells

STUDIES = (
    *("emoji-lr", "emoji-batch-size", "emoji-multilingual", "emoji-scratch", "emoji-bottleneck"),
    *("emoji-vocabulary", "emoji-temperature", "emoji-same-caption"),
)


def study() -> Study:
    parts = [load_study(name) for name in STUDIES]
    return emoji_study(
        name="emoji",
        question="What of the paper holds in 36 languages, on two cores?",
        cells=merge_cells(parts),
        paper="Table 2, Table 9, Fig. 2 right, Fig. 8, Sec. 4.3",
        assumptions=tuple(dict.fromkeys(a for part in parts for a in part.assumptions)),
        prepare="sweeps.grids.emoji.vocabulary:prepare",
    )
