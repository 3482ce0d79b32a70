"""The paper's printed numbers as cells, so that every claim is tested on them as on records.

Tables 2, 4, 5, 8 and 9 say which cell each number belongs to. Each is of one run and has one
decimal; how much two of them differ by chance is known from Table 7, see `run_spread`. Figs. 4 to 7
are printed without numbers: the claims about them have no data here.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.paper.reference import reference
from analysis.records.record import COLUMNS
from analysis.select.fields import TOP1
from analysis.stats.intervals import Spread

ROUNDING = 0.05  # half of the one decimal that is printed
REPEATS = 5  # runs behind each standard deviation of Table 7
RECALL = "eval/multilingual_retrieval/xm3600/test/text_to_image_r1"  # the mean over languages
SIGLIT: dict[str, Any] = {"model.image.kind": "cached", "data.dataset": "LiT's image-text pairs"}
SIGLIP: dict[str, Any] = {"model.image.kind": "vit", "data.dataset": "WebLI, English"}
# FLOPs of both towers on one example, and the embedding size, as `study plan` counts them for the
# cells of these tables. SigLiT's frozen image tower is not in them: its embeddings are made once.
TOWER_FLOPS = {"Table 8": (8_188_526_592, 1408), "Table 5": (114_204_119_040, 768)}
PAIR_FLOPS = {"sigmoid": 6, "softmax": 8}  # of a pair, for each dimension of the embeddings
MULTILINGUAL: dict[str, Any] = {"model.image.kind": "vit", "data.dataset": "WebLI, all languages"}


def cells() -> pd.DataFrame:
    """The numbers of Tables 2, 4, 5, 8 and 9 as one seed of each cell, see `frame.cells`.

    Raises:
      AnalysisError: the paper's numbers are missing.
    """
    table = reference()
    rows = [
        *_by_batch_size(table, "Table 8", SIGLIT),
        *_by_batch_size(table, "Table 5", SIGLIP),
        *_starts(table),
        *_multilingual(table),
    ]
    frame = pd.DataFrame([{"id": f"paper-{i}", **row} for i, row in enumerate(rows)])
    return frame.reindex(columns=list(dict.fromkeys((*COLUMNS, *frame.columns))))


def run_noise() -> tuple[float, int]:
    """Standard deviation between runs and its degrees of freedom: the largest of Table 7, whose
    digits allow no average.

    Raises:
      AnalysisError: the paper's numbers are missing.
    """
    repeats = reference("Table 7")
    deviations = repeats.loc[repeats["metric"].str.endswith("std of 5"), "value"]
    return float(deviations.max()), REPEATS - 1


def run_spread() -> Spread:
    """The error of one printed accuracy: between runs, and by rounding.

    Table 7 has the standard deviation of three times five runs at B = 32k and 3B examples, in
    points of ImageNet zero-shot accuracy. Its mean square is taken for every number, also at other
    batch sizes and in recall, where nothing else is known. Rounding, of the numbers and of these
    standard deviations, adds the variance of a uniform error.

    Raises:
      AnalysisError: the paper's numbers are missing.
    """
    table = reference("Table 7")
    deviations = table.loc[table["metric"].str.endswith("std of 5"), "value"]
    variance = float((deviations**2).mean()) + 2 * ROUNDING**2 / 3
    return Spread(math.sqrt(variance), (REPEATS - 1) * len(deviations))


def _cell(batch_size: int, examples: float, **fields: Any) -> dict[str, Any]:
    return {
        "status": "done",
        "batch_size": batch_size,
        "seed": 0,
        "examples": examples,
        "budget.examples": examples,
        "dataset_fingerprint": "paper",
        "content": "",
        **fields,
    }


def _by_batch_size(table: pd.DataFrame, name: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Table 5 or 8: sigmoid and softmax by batch size and examples seen."""
    towers, embed_dim = TOWER_FLOPS[name]
    rows = []
    for _, row in table[table["figure"] == name].iterrows():
        size, loss = int(row["x"]), row["series"].lower()
        flops = {
            "flops.towers": size * towers,
            "flops.loss": size**2 * embed_dim * PAIR_FLOPS[loss],
        }
        common = {**fields, **_loss(loss), **flops, TOP1: row["value"]}
        rows.append(_cell(size, _examples(row["panel"]), **common))
    return rows


def _starts(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Table 4: where bias and temperature start, at 8k and 900M examples."""
    rows = table[(table["figure"] == "Table 4") & table["metric"].str.startswith("ImageNet")]
    starts = []
    for _, row in rows.iterrows():
        bias = None if pd.isna(row["x"]) or row["x"] == "n/a" else float(row["x"])
        temperature = float(str(row["series"]).rpartition("log ")[2])
        fields = {**SIGLIP, **_loss("sigmoid"), "loss.b_init": bias, "loss.t_init": temperature}
        starts.append(_cell(8192, 900e6, **fields, **{TOP1: row["value"]}))
    return starts


def _multilingual(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Tables 2 and 9: zero-shot and text-to-image recall in 36 languages by batch size."""
    measured: dict[int, dict[str, float]] = {}
    zero_shot = (table["figure"] == "Table 2") & table["metric"].str.startswith("ImageNet")
    recall = (table["figure"] == "Table 9") & table["panel"].str.startswith("text-to-image, 30B")
    for _, row in table[zero_shot | recall].iterrows():
        language = row["series"].partition("lang=")[2]
        name = TOP1 if not language else RECALL.replace("/text", f"/{language}_text")
        measured.setdefault(int(row["x"]), {})[name.replace("/avg_", "/")] = row["value"]
    common = {**MULTILINGUAL, **_loss("sigmoid")}
    return [_cell(size, 30e9, **common, **values) for size, values in measured.items()]


def _loss(kind: str) -> dict[str, Any]:
    if kind == "softmax":
        return {"loss.kind": kind, "loss.b_init": None, "loss.t_init": 10.0}
    pairs = {"loss.pairs.kind": "all"}
    return {"loss.kind": kind, **pairs, "loss.b_init": -10.0, "loss.t_init": 10.0}


def _examples(panel: str) -> float:
    """ "450M examples seen" as a number."""
    text = panel.split()[0]
    return math.prod((float(text[:-1]), {"M": 1e6, "B": 1e9}[text[-1]]))
