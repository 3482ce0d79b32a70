"""Frames of made cells, with effects that are known."""

import math

import numpy as np
import pandas as pd

from analysis.claims import CLAIMS, judge
from analysis.records.frame import COLUMNS
from analysis.select.fields import TOP1

VALIDATION = "eval/zero_shot/val_font/top1"
BASE = {
    "status": "done",
    "examples": 1e6,
    "model.image.kind": "cached",
    "model.text.kind": "mean_pool",
    "data.dataset": "glyphs",
    "dataset_fingerprint": "f",
    "content": "",
    "loss.kind": "sigmoid",
    "loss.pairs.kind": "all",
    "loss.pairs.keep": None,
    "loss.pairs.per_positive": None,
    "loss.b_init": -10.0,
    "loss.t_init": 10.0,
    "optimizer.learning_rate": 1e-3,
    "batch_size": 256,
}
SOFTMAX = {"loss.kind": "softmax", "loss.pairs.kind": None, "loss.b_init": None}
SCRATCH = {"model.image.kind": "vit"}
RATIOS = (128.0, 32.0, 8.0)


def frame(rows, *, seeds=3, sd=0.1, metric=TOP1):
    """One cell per row and seed, or of the row's own "seed" alone.

    "quality" is the true value of the metric; it and all other metrics get noise.
    """
    rng, cells = np.random.default_rng(0), []
    for row in rows:
        own = {metric if key == "quality" else key: value for key, value in row.items()}
        for seed in [row["seed"]] if "seed" in row else range(seeds):
            cell = BASE | {"seed": seed, "id": f"cell-{len(cells)}"} | own
            for key in own:
                if key.startswith(("eval/", "train/")):
                    cell[key] += sd * rng.standard_normal()
            cell |= {"budget.examples": cell["examples"], "examples_seen": cell["examples"]}
            cell.setdefault("pairs_seen", int(cell["examples"]) * cell["batch_size"])
            cells.append(cell)
    table = pd.DataFrame(cells)
    return table.reindex(columns=list(dict.fromkeys((*COLUMNS, *table.columns))))


def verdict(name, cells, **more):
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    (found,) = judge(cells, claims=[claim], **more)
    return found


def verdicts(cells, names=None):
    """By name, of all claims or of those named."""
    claims = [claim for claim in CLAIMS if names is None or claim.name in names]
    return {found.name: found for found in judge(cells, claims=claims)}


def batch_panel(sigmoid, gaps=(), **fields):
    """Rows of sigmoid cells by batch size, and softmax cells that are behind them by `gaps`."""
    rows = [{"batch_size": size, "quality": q} | fields for size, q in sigmoid.items()]
    softmax = [
        row | SOFTMAX | {"quality": row["quality"] - gap}
        for row, gap in zip(rows, gaps, strict=False)
    ]
    return [*rows, *softmax]


def composition_panel(**slopes):
    """Rows of masked cells: quality, bias, positive and negative logits move by these slopes per
    tenfold fewer negatives, from those of the whole batch."""
    names = ("quality", "train/b", "train/pos_logit_mean", "train/neg_logit_mean")
    whole = dict(zip(names, (30.0, -10.0, 0.0, -10.0), strict=True))
    rows = [{"batch_size": 512} | whole]
    for keep, slope in slopes.items():
        for ratio in RATIOS:
            moved = [s * math.log10(511 / ratio) for s in slope]
            rows.append(
                {"batch_size": 512, "loss.pairs.kind": "negatives", "loss.pairs.keep": keep}
                | {"loss.pairs.per_positive": ratio}
                | {name: whole[name] + step for name, step in zip(names, moved, strict=True)}
            )
    return rows
