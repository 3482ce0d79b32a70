"""The multilingual cells and their recall by language: Figs. 2 and 8, Tables 2 and 9.

Cells, by their fields: sigmoid with all pairs and a multilingual evaluation in `evals`, by
`batch_size`. Those with `data.text_length` = 64 are the scaled-up run of Sec. 4.6 (`*32k` in the
paper).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analysis.paper.reference import find_metric
from analysis.select import panels

HEBREW = {"he": "iw"}  # the code of the data set, and of the paper's table
SCALED = ", scaled up"  # behind the batch size of the scaled-up run


def by_batch_size(cells: pd.DataFrame) -> panels.Panel:
    """The cells of Fig. 2 right, without the scaled-up run."""
    cells = panels.plain(cells)
    own = panels.multilingual(cells) & ~panels.scaled_up(cells)
    own &= (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    return panels.select(cells[own], ("batch_size",), free=("optimizer.learning_rate",))


def with_scaled_up(cells: pd.DataFrame) -> list[tuple[panels.Panel, str]]:
    """`by_batch_size` and the scaled-up run, each with what stands behind its batch sizes."""
    plain = panels.plain(cells)
    own = panels.multilingual(plain) & (plain["loss.kind"] == "sigmoid") & panels.scaled_up(plain)
    return [(by_batch_size(cells), ""), (panels.select(plain[own], ("batch_size",)), SCALED)]


def mean_recall(cells: pd.DataFrame, direction: str = "text_to_image") -> str:
    """The metric of mean recall@1 over languages: on XM3600, or the cells' first evaluation."""
    measure = f"{direction}_r1"
    keys = [
        k
        for k in cells
        if k.startswith("eval/multilingual_retrieval/") and k.endswith(f"/{measure}")
    ]
    keys = [key for key in keys if cells[key].notna().any()]
    xm = find_metric(keys, "XM3600", kind="multilingual_retrieval", measure=measure)
    return xm or next(iter(keys), f"eval/multilingual_retrieval/xm3600/test/{measure}")


def recall_by_language(cells: pd.DataFrame, direction: str) -> Mapping[str, str]:
    """The metric of recall@1 by language as the paper writes it; "avg", their mean, last."""
    mean = mean_recall(cells, direction)
    head, end = mean.rpartition("/")[0] + "/", f"_{direction}_r1"
    codes = {
        key.removeprefix(head).removesuffix(end): key
        for key in cells
        if key.startswith(head) and key.endswith(end)
    }
    found = {HEBREW.get(code, code): key for code, key in codes.items()}
    return dict(sorted(found.items())) | ({"avg": mean} if mean in cells else {})
