"""Cells made up, with effects that are known: for tests, and for `analysis.claims.null_studies`.

A row is a dict of fields of one cell; "quality" is the true value of the metric that is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.corruption import CORRUPTIONS, PARTS
from analysis.records.record import COLUMNS
from analysis.select.fields import TOP1
from analysis.select.tried_rates import VALIDATION
from analysis.stats.spikes import GRADIENTS, UPDATES

Row = dict[str, Any]

BASE: Row = {
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
SOFTMAX: Row = {"loss.kind": "softmax", "loss.pairs.kind": None, "loss.b_init": None}
SCRATCH: Row = {"model.image.kind": "vit"}
MEASURED = ("eval/", "train/")  # the columns that get noise
RATIOS = (128.0, 32.0, 8.0)
MASKED_B = 512
VAL_LOSS = "eval/val_loss/val_font/softmax"
# What a masked cell shows, and its value with the whole batch.
WHOLE = {"quality": 30.0, "train/b": -10.0}
WHOLE |= {"train/pos_logit_mean": 0.0, "train/neg_logit_mean": -10.0}


def recall_of(language: str) -> str:
    """The metric of recall in one language, or with "" of its mean over languages."""
    return f"eval/multilingual_retrieval/made/{language}{'_' * bool(language)}text_to_image_r1"


def make_cells(rows: Iterable[Row], *, seeds: int = 3, metric: str = TOP1) -> pd.DataFrame:
    """One cell per row and seed, or of the row's own "seed" alone, without noise.

    Returns: as `frame.cells`; the column "row" numbers the rows.
    """
    cells: list[Row] = []
    for number, row in enumerate(rows):
        own = {metric if key == "quality" else key: value for key, value in row.items()}
        for seed in [row["seed"]] if "seed" in row else range(seeds):
            cell = BASE | {"seed": seed, "id": f"cell-{len(cells)}", "row": number} | own
            cell |= {"budget.examples": cell["examples"], "examples_seen": cell["examples"]}
            cell.setdefault("pairs_seen", int(cell["examples"]) * cell["batch_size"])
            cells.append(cell)
    table = pd.DataFrame(cells)
    return table.reindex(columns=list(dict.fromkeys((*COLUMNS, *table.columns))))


def add_noise(
    cells: pd.DataFrame,
    rng: np.random.Generator,
    sd: float | Callable[[str, pd.DataFrame], np.ndarray],
) -> pd.DataFrame:
    """The cells with normal noise on every measured column.

    Args:
      sd: of all of them, or by column and cells.
    """
    noisy = {}
    for column in cells:
        if column.startswith(MEASURED):
            spread = sd if isinstance(sd, float) else sd(column, cells)
            noise = spread * rng.standard_normal(len(cells))
            noisy[column] = cells[column].astype(float) + noise
    return cells.assign(**noisy)


def batch_panel(
    sigmoid: Mapping[int, float], gaps: Sequence[float] = (), **fields: Any
) -> list[Row]:
    """Sigmoid cells by batch size, and softmax cells that are behind them by `gaps`.

    They are long enough for every batch size to decide.
    """
    fields = {"examples": 1e7} | fields
    rows = [{"batch_size": size, "quality": q} | fields for size, q in sigmoid.items()]
    softmax = [
        row | SOFTMAX | {"quality": row["quality"] - gap}
        for row, gap in zip(rows, gaps, strict=False)
    ]
    return [*rows, *softmax]


def by_budget(qualities: Mapping[float, Mapping[int, float]]) -> list[Row]:
    """Sigmoid cells by batch size, at each budget of examples."""
    return [
        {"batch_size": size, "examples": examples, "quality": quality}
        for examples, by_size in qualities.items()
        for size, quality in by_size.items()
    ]


def composition_panel(**slopes: Sequence[float]) -> list[Row]:
    """Masked cells: what they show moves by these slopes per tenfold fewer negatives.

    Args:
      slopes: of the four numbers of `WHOLE`, by what is kept.
    """
    rows: list[Row] = [{"batch_size": MASKED_B} | WHOLE]
    for keep, slope in slopes.items():
        for ratio in RATIOS:
            decades = math.log10((MASKED_B - 1) / ratio)
            rows.append(
                {"batch_size": MASKED_B, "loss.pairs.kind": "negatives", "loss.pairs.keep": keep}
                | {"loss.pairs.per_positive": ratio}
                | {name: WHOLE[name] + s * decades for name, s in zip(WHOLE, slope, strict=True)}
            )
    return rows


def matched_pairs(gain_same_pairs: float, gain_same_examples: float) -> list[Row]:
    """Hard negatives at ten times the examples, and whole batches at as many pairs and examples."""
    hard: Row = {"loss.pairs.kind": "negatives", "loss.pairs.keep": "hard"}
    hard |= {"loss.pairs.per_positive": 24.6, "examples": 1e7, "pairs_seen": 256_000_000}
    return [
        {"quality": 40.0},
        {"quality": 40.0 + gain_same_pairs - gain_same_examples, "examples": 1e7},
        hard | {"quality": 40.0 + gain_same_pairs},
    ]


def starts(quality: Mapping[Any, float], **fields: Any) -> list[Row]:
    """Sigmoid cells by initial bias and temperature, the keys of `quality`."""
    return [
        {"loss.b_init": b, "loss.t_init": t, "quality": q} | fields for (b, t), q in quality.items()
    ]


def corrupted(
    kind: str, leads: Mapping[float, float], *, resample_each_epoch: bool = False, **fields: Any
) -> list[Row]:
    """Both losses by the probability of corruption; sigmoid's lead over softmax at each."""
    parts = dict(zip(PARTS, CORRUPTIONS[kind], strict=True))
    return [
        (SOFTMAX if loss == "softmax" else {})
        | {part: p * present for part, present in parts.items()}
        | {"data.corruption.resample_each_epoch": resample_each_epoch if p else False}
        | {"quality": 40 - 20 * p + (lead if loss == "sigmoid" else 0.0)}
        | fields
        for p, lead in leads.items()
        for loss in ("sigmoid", "softmax")
    ]


def every_corruption(
    clean: float, corrupt: Mapping[float, float], *, resample_each_epoch: bool = False
) -> list[Row]:
    """All kinds of corruption with the same leads; they share their clean cells."""
    rows = corrupted("image", {0.0: clean})
    for kind in CORRUPTIONS:
        rows += corrupted(kind, corrupt, resample_each_epoch=resample_each_epoch)
    return rows


def pairs_map(
    pairs: float,
    steps: float,
    *,
    starts: Sequence[Any] = (-10.0, "prior"),
    prior: float = 0.0,
    equal_steps: int | None = None,
    **fields: Any,
) -> list[Row]:
    """A map whose quality rises by these points per doubling of pairs and of examples per step.

    Args:
      prior: the lead of the second start over the first.
      equal_steps: of each run; None is equal examples.
    """
    return [
        {"batch_size": size, "loss.b_init": start, "loss.pairs.kind": kind}
        | {"loss.pairs.size": group}
        | {"quality": 30 + pairs * math.log2(group) + steps * math.log2(size) + lag}
        | ({"examples": float(equal_steps * size)} if equal_steps else {})
        | fields
        for start, lag in zip(starts, (0.0, prior), strict=False)
        for size in (64, 256, 1024)
        for group in (4, 16, 64, 256, 1024)
        if group <= size
        for kind in ("all" if group == size else "groups",)
    ]


def scaling_rules(lost: Mapping[int, float], *, at: int = 256) -> list[Row]:
    """Settings tuned at one batch size and carried to others by every rule, for both losses.

    The best rate grows as B^0.3, and the search finds it.

    Args:
      lost: by batch size, what each rule loses to the rate tuned there.
    """
    best = {size: 1e-3 * (size / at) ** 0.3 for size in (at, *lost)}
    kept: Row = {"optimizer.b2": 0.95, "optimizer.weight_decay": 1e-4, "examples": 1e7}
    half_life: Row = {"optimizer.b2_half_life_examples": at * math.log(0.5) / math.log(0.95)}
    time: Row = {"optimizer.weight_decay_time_examples": at / 1e-4}
    search = [
        {"batch_size": size, "seed": 100, "quality": 40.0}
        | {"optimizer.learning_rate": times * rate, VALIDATION: 40.0 - 8 * (times != 1)}
        for size, rate in best.items()
        for times in (0.5, 1.0, 2.0)
    ]
    carried = []
    for size, behind in lost.items():
        arms: list[Row] = [{"optimizer.learning_rate": best[size], "quality": 40.0}]
        for exponent in (0.0, 0.5, 1.0, 0.4):
            arms.append({"optimizer.learning_rate": best[at] * (size / at) ** exponent})
        for other in (half_life, {"optimizer.b2_half_life_examples": 2e4}, time):
            arms.append({"optimizer.learning_rate": best[size]} | other)
        arms.append({"optimizer.learning_rate": best[at] * (size / at) ** 0.5} | half_life | time)
        carried += [{"batch_size": size, "quality": 40.0 - behind} | arm for arm in arms]
    return [kept | loss | row for loss in ({}, SOFTMAX) for row in (*search, *carried)]


def branch_cells(losses: Mapping[str, Mapping[int, Mapping[int, float]]]) -> list[Row]:
    """Branches with these validation losses, by loss, examples before them and batch size."""
    return [
        (SOFTMAX if loss == "softmax" else {})
        | {"batch_size": size, "branch.cell": "parent", "branch.examples": at, VAL_LOSS: value}
        for loss, by_point in losses.items()
        for at, by_size in by_point.items()
        for size, value in by_size.items()
    ]


def warm_up(leads: Mapping[int, float], *, seeds: int = 3, shift: float = 0.0) -> list[Row]:
    """Runs at B = 256, then 1024, of both losses, that lead constant sizes by these points.

    Args:
      shift: of the bias of sigmoid at B = 1024.
    """
    rows: list[Row] = []
    total, rates = 2**18, {256: 0.01, 1024: 0.02}
    for seed in range(seeds):
        for loss, fields in (("sigmoid", {}), ("softmax", SOFTMAX)):
            first = f"{loss}-{seed}"
            for size, rate in rates.items():
                own = fields | {"seed": seed, "batch_size": size, "optimizer.learning_rate": rate}
                lead = leads[size]
                rows.append(own | {"examples": total, "quality": 40.0 - lead})
                part: Row = {"examples": total // 2, "optimizer.schedule_examples": total}
                if size == 256:
                    part |= {"id": first, "quality": 20.0}
                else:
                    part |= {"branch.cell": first, "branch.examples": total // 2, "quality": 40.0}
                    part |= {"branch.bias_shift": shift} if loss == "sigmoid" and shift else {}
                rows.append(own | part)
    return rows


def queue_matches(**gains: tuple[float, float]) -> list[Row]:
    """A batch of 64 with and without queues, and the batches as large as both.

    Examples and FLOPs of the runs are equal.

    Args:
      gains: by loss, over the batch of 64 alone: of its queues, and of the larger batches.
    """
    rows = []
    for loss, (queue, large) in gains.items():
        kind = SOFTMAX if loss == "softmax" else {}
        for size, stored, gain in (
            *((64, 0, 0.0), (256, 0, large), (1024, 0, large)),
            *((64, 192, queue), (64, 960, queue)),
        ):
            row: Row = kind | {"batch_size": size, "loss.queue_examples": stored}
            row |= {"quality": 40.0 + gain, "flops.towers": 1e3 * size, "flops.loss": 0.0}
            rows.append(row)
    return rows


def same_captions(negative: Mapping[int, float], **gains: Sequence[float]) -> list[Row]:
    """Sigmoid cells by batch size whose equal captions are negatives, or something else.

    Args:
      gains: over these, by batch size: of "masked" and "positive".
    """
    return [
        {"batch_size": size, "loss.same_caption": way, "quality": quality + gain}
        for way, by_size in {"negative": (0.0,) * len(negative), **gains}.items()
        for (size, quality), gain in zip(negative.items(), by_size, strict=True)
    ]


def logged_norms(
    cells: pd.DataFrame, rng: np.random.Generator, *, spike: float, at: float = 0.999
) -> pd.DataFrame:
    """Norms of 100 rows of each cell; those at this beta2 spike once, by this factor."""
    spiky = (cells["optimizer.b2"] == at).to_numpy()
    rows = {
        "id": np.repeat(cells["id"].to_numpy(), 100),
        "step": np.tile(range(1, 101), len(cells)),
    }
    rows["examples_seen"] = 256 * rows["step"]
    for norm in (UPDATES, GRADIENTS):
        norms_CxR = np.exp(0.05 * rng.standard_normal((len(cells), 100)))
        norms_CxR[spiky, 59] *= spike
        rows[norm] = norms_CxR.ravel()
    return pd.DataFrame(rows)
