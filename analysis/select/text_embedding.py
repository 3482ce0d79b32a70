"""Text towers by vocabulary and bottleneck, and temperatures that are learned or fixed.

Cells of one batch size and budget that are evaluated in several languages (paper Sec. 4.3).
"""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd

from analysis.select import multilingual, panels
from analysis.select.fields import with_fields
from analysis.select.panels import Panel

BOTTLENECK, WIDTH, TOKENIZER = "model.text.bottleneck", "model.text.width", "data.tokenizer"
SCALARS, T_INIT, SPLIT = "optimizer.loss_scalars", "loss.t_init", "data.split"
PIECES, RANK, T = "pieces", "rank", "t"  # the axes of these panels
LEARNED, FIXED = "learned", "fixed"


def by_vocabulary(cells: pd.DataFrame) -> Panel:
    """Cells by the pieces of their tokenizer, by loss, and by t, `LEARNED` or `FIXED`.

    The initial t may differ between the two. Empty unless pieces or t vary.
    """
    cells = _cells(cells)
    cells = cells[cells[BOTTLENECK].isna()]
    frozen = cells[f"{SCALARS}.frozen"].astype(object).eq(True)
    cells = cells.assign(**{PIECES: pieces(cells), T: frozen.map({True: FIXED, False: LEARNED})})
    panel = panels.select(
        cells[cells[PIECES].notna()],
        (PIECES, "loss.kind", T),
        free=(TOKENIZER, T_INIT, SCALARS),
        by_loss=("loss.b_init", "loss.pairs"),
    )
    return panel if panel.cells[[PIECES, T]].nunique().max() > 1 else _empty(panel)


def by_bottleneck(cells: pd.DataFrame) -> Panel:
    """Cells with sigmoid by the rank of their token embedding; without a bottleneck its width."""
    cells = _cells(cells)
    cells = cells[cells["loss.kind"] == "sigmoid"]
    rank = pd.to_numeric(cells[BOTTLENECK], errors="coerce").fillna(cells[WIDTH].astype(float))
    panel = panels.select(cells.assign(**{RANK: rank}), (RANK,), free=(BOTTLENECK,))
    return panel if panel.cells[RANK].nunique() > 1 else _empty(panel)


def recalls(cells: pd.DataFrame) -> dict[str, str]:
    """Mean text-to-image recall@1 over languages on every split, by its name."""
    end = f"/{multilingual.T2I}_r1"
    keys = [k for k in cells if k.startswith("eval/multilingual_retrieval/") and k.endswith(end)]
    return {k.split("/")[-2].replace("_", " "): k for k in keys if cells[k].notna().any()}


def pieces(cells: pd.DataFrame) -> pd.Series:
    """The vocabulary of each cell.

    That of a named tokenizer is the number in its name, "sentencepiece-32000.model". Without a name
    it is the data set's own: of a tower that has as many parameters but for the embedding, the
    difference tells it. NaN where nothing does.
    """
    named = cells[TOKENIZER].map(pieces_of_name).astype(float)
    known = cells[named > 0]
    anchors = {
        (row["loss.kind"], row[WIDTH]): (row["parameters"], named[i]) for i, row in known.iterrows()
    }
    found = {}
    for i, row in cells.iterrows():
        anchor = anchors.get((row["loss.kind"], row[WIDTH]))
        if named[i] > 0:
            found[i] = named[i]
        elif anchor and pd.isna(row[TOKENIZER]):
            found[i] = anchor[1] + round((row["parameters"] - anchor[0]) / row[WIDTH])
    return pd.Series(found, dtype=float).reindex(cells.index)


def pieces_of_name(name: object) -> int:
    """The size of a tokenizer by its name: "sentencepiece-32000.model"; 0 without a number."""
    numbers = re.findall(r"\d+", str(name))
    return int(numbers[-1]) if numbers else 0


def _cells(cells: pd.DataFrame) -> pd.DataFrame:
    fields = [BOTTLENECK, WIDTH, TOKENIZER, SPLIT, f"{SCALARS}.frozen", "parameters"]
    cells = panels.plain(with_fields(cells, fields))
    cells = cells[panels.multilingual(cells) & cells[WIDTH].notna()]
    uniform = cells[SPLIT] == multilingual.UNIFORM
    return cells[uniform] if uniform.any() else cells


def _empty(panel: Panel) -> Panel:
    return replace(panel, cells=panel.cells[:0])
