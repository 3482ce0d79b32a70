"""The multilingual cells and their recall by language: Figs. 2 and 8, Tables 2 and 9, Sec. 4.3.

Cells, by their fields: sigmoid with all pairs and a multilingual evaluation in `evals`, by
`batch_size`. Those with `data.text_length` = 64 are the scaled-up run of Sec. 4.6 (`*32k` in the
paper). `data.split` says how often each language occurs in training: where a study varies it,
`by_batch_size` has the cells on `UNIFORM`, and `by_mix` has all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from analysis.select import panels
from analysis.select.benchmarks import find_metric
from analysis.select.panels import Panel
from analysis.select.rate_rule import choose_rule

HEBREW = {"he": "iw"}  # the code of the data set, and of the paper's table
SCALED = ", scaled up"  # behind the batch size of the scaled-up run
UNIFORM, ENGLISH, BY_WEB = "train", "train_en", "train_web"
MIXES = {
    UNIFORM: "36 languages, equally frequent",
    ENGLISH: "English only",
    BY_WEB: "36 by share of the web",
}
MIX_AXES = ("data.split", "batch_size")
FROZEN, SCRATCH = "cached", "vit"  # image towers
T2I, I2T = "text_to_image", "image_to_text"
# The script that a language is written in, by the paper's codes; those without are Latin.
SCRIPTS = {
    "Cyrillic, Greek": ("el", "ru", "uk"),
    "Arabic, Hebrew": ("ar", "fa", "iw"),
    "Indic, Thai": ("bn", "hi", "te", "th"),
    "East Asian": ("ja", "ko", "zh"),
}
LATIN = "Latin"


def by_batch_size(cells: pd.DataFrame) -> Panel:
    """The cells of Fig. 2 right, without the scaled-up run, at the budget of `longest_budget`."""
    by = by_budget(cells)
    budget = panels.longest_budget({b: panel.cells for b, panel in by.items()})
    if budget is None:
        return _one_rule(_plain(cells), ("batch_size",))
    notes = by[budget].notes
    if others := " and ".join(f"{other:,}" for other in sorted(set(by) - {budget})):
        notes = (*notes, f"not shown: the same after {others} examples")
    return replace(by[budget], notes=notes)


def by_budget(cells: pd.DataFrame) -> dict[int, Panel]:
    """The cells of `by_batch_size` at each budget in examples, with one data set and model."""
    cells = _plain(cells)
    if cells.empty or "budget.examples" not in cells:
        return {}
    cells = cells[cells["budget.examples"].notna()]
    if (cells["data.split"] == UNIFORM).any():
        cells = cells[cells["data.split"] == UNIFORM]
    panel = panels.select(cells, ("budget.examples", "batch_size"), free=("budget.", "optimizer."))
    return {
        int(budget): _ruled(replace(panel, cells=part, axes=("batch_size",)))
        for budget, part in panel.cells.groupby("budget.examples")
    }


def by_mix(cells: pd.DataFrame, *, image: str | None = None) -> Panel:
    """The cells on each of `MIXES` by batch size, equal in the rest; empty without `ENGLISH`.

    Args:
      image: the tower, `model.image.kind`; None for that with most cells.
    """
    cells = _plain(cells)
    cells = cells[cells["data.split"].isin([*MIXES])]
    if image is not None:
        cells = cells[cells["model.image.kind"] == image]
    panel = _one_rule(cells, MIX_AXES)
    if (panel.cells["data.split"] == ENGLISH).any():
        return panel
    return replace(panel, cells=panel.cells[:0])


def with_scaled_up(cells: pd.DataFrame) -> list[tuple[Panel, str]]:
    """`by_batch_size` and the scaled-up run, each with what stands behind its batch sizes."""
    plain = panels.plain(cells)
    own = panels.multilingual(plain) & (plain["loss.kind"] == "sigmoid") & panels.scaled_up(plain)
    return [(by_batch_size(cells), ""), (panels.select(plain[own], ("batch_size",)), SCALED)]


def mean_recall(cells: pd.DataFrame, direction: str = T2I) -> str:
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


def recall_by_language(cells: pd.DataFrame, direction: str = T2I) -> Mapping[str, str]:
    """The metric of recall@1 by language as the paper writes it; "avg", their mean, last."""
    mean = mean_recall(cells, direction)
    head, end = mean.rpartition("/")[0] + "/", f"_{direction}_r1"
    codes = {
        key.removeprefix(head).removesuffix(end): key
        for key in cells
        if key.startswith(head) and key.endswith(end) and cells[key].notna().any()
    }
    found = {HEBREW.get(code, code): key for code, key in codes.items()}
    return dict(sorted(found.items())) | ({"avg": mean} if mean in cells else {})


def script_of(language: str) -> str:
    """The group of `SCRIPTS` that a language is in."""
    return next((name for name, codes in SCRIPTS.items() if language in codes), LATIN)


def _plain(cells: pd.DataFrame) -> pd.DataFrame:
    """The multilingual sigmoid cells with all pairs, without the scaled-up run."""
    cells = panels.plain(cells)
    own = panels.multilingual(cells) & ~panels.scaled_up(cells)
    own &= (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    cells = cells[own]
    return cells if "data.split" in cells else cells.assign(**{"data.split": None})


def _one_rule(cells: pd.DataFrame, axes: tuple[str, ...]) -> Panel:
    """The cells that differ in the axes and the seed, with one rule for the learning rate."""
    return _ruled(panels.select(cells, axes, free=("optimizer.",)))


def _ruled(panel: Panel) -> Panel:
    optimizer = [name for name in panel.cells if name.startswith("optimizer.")]
    ruled = choose_rule(panel.cells, optimizer, panels.AXES_BATCH).reset_index(drop=True)
    ruled.attrs = dict(panel.cells.attrs)
    return replace(panel, cells=ruled)
