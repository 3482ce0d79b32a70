"""Claims about the recipe: decay on a pretrained tower, and beta2 (Sec. 4.5 and 4.7)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from analysis.claims.claim import Claim, Evidence, Verdict, conclude, weakest, withhold
from analysis.claims.scope import scope
from analysis.select.fields import matched_differences, row_keys, same_fields, with_fields
from analysis.stats.contrasts import mean_weights
from analysis.stats.intervals import Interval

DECAY, WEIGHT = "optimizer.image.wd_mult", "optimizer.weight_decay"
B2, STEADY, DEFAULT = "optimizer.b2", 0.95, 0.999
UPDATES = "train/update_norm"  # of the step of the row
LARGEST = "train/update_norm_max"  # of all steps since the last row; older records lack it
ROUGHNESS = "roughness"
WINDOW = 9  # rows around a row, whose median it is compared with
WARM = 0.1  # of a run, left out: while the rate rises, updates grow by design
DENSE = 0.5  # of the steps must be logged: a spike lasts a few steps and leaves no other trace


def decay_hurts(evidence: Evidence) -> Verdict | None:
    """A pretrained image tower ends better without weight decay than with it.

    Cells that differ in `optimizer.image.wd_mult` alone, 0 against 1, are paired by seed.
    Judged by zero-shot quality, and by the few-shot probe of the tower where it was recorded.
    """
    cells = with_fields(evidence.cells, ["model.init", DECAY, WEIGHT])
    done = cells[cells["model.init"].notna() & (cells["status"] == "done")]
    probes = [c for c in done if c.startswith("eval/few_shot/") and c.endswith("/top1")]
    means = {
        metric: evidence.means(matched_differences(done, DECAY, 0.0, 1.0, metric), differences=True)
        for metric in (evidence.metric, *probes)
    }
    gains = {
        metric: pooled.contrast(mean_weights(pooled.means))
        for metric, pooled in means.items()
        if pooled.means
    }
    if not gains:
        return None
    lowest = weakest(gains)
    decays = ", ".join(f"{value:g}" for value in sorted(set(done[WEIGHT].dropna())))
    return conclude(
        gains[lowest],
        means[lowest],
        f"Without weight decay ({decays or 'unknown'} in the other cells) the pretrained tower "
        f"gains {'; '.join(f'{gain} points in {metric}' for metric, gain in gains.items())}",
        scope=scope(done),
        conditions=gains,
    )


def lower_b2_is_steadier(evidence: Evidence) -> Verdict | None:
    """The norm of the updates spikes less with beta2 = 0.95 than with 0.999.

    Cells that differ in beta2 alone are paired by seed and compared by their `roughness`. A cell
    that diverged has none; the sentence counts those.
    """
    cells = with_fields(evidence.cells, [B2])
    pair = cells[cells[B2].isin([STEADY, DEFAULT])]
    if set(pair[B2]) != {STEADY, DEFAULT}:
        return None
    measured = pair.merge(roughness(evidence.rows, set(pair["id"])), on="id", how="left")
    done = measured[measured["status"] == "done"]
    means = evidence.means(matched_differences(done, B2, DEFAULT, STEADY, ROUGHNESS))
    if not means.means:
        return None
    rougher = means.contrast(mean_weights(means.means))
    times = Interval(10**rougher.estimate, 10**rougher.low, 10**rougher.high)
    compared = done[[key in means.means for key in row_keys(done, same_fields(done, [B2]))]]
    diverged = measured[B2][measured["status"] == "diverged"].tolist()
    verdict = conclude(
        rougher,
        means,
        f"The worst spike in the recorded update norms is {times:.2f} times as high with beta2 "
        f"0.999 as with 0.95; diverged: {diverged.count(DEFAULT)} and {diverged.count(STEADY)} "
        "cells",
        unit="log10 of the worst spike",
        scope=scope(compared),
    )
    logged = logged_share(evidence.rows, set(compared["id"]))
    if logged >= DENSE:
        return verdict
    return withhold(
        verdict,
        because=f"A spike lasts a few steps, and in one cell only {logged:.1%} of the steps were "
        "logged: spikes in the rest cannot be seen.",
        decide="the same cells with maxima over every step in their rows",
    )


def logged_share(rows: pd.DataFrame, cells: Collection[str]) -> float:
    """The share of steps whose update norms entered a row, the smallest of these cells."""
    rows = rows[rows["id"].isin(cells) & (rows[UPDATES] > 0)]
    steps = rows.groupby("id")["step"]
    share = steps.nunique() / steps.max()
    if LARGEST in rows:  # a maximum over every step since the row before
        share[rows[LARGEST].notna().groupby(rows["id"]).all()] = 1.0
    return float(share.min())


def roughness(rows: pd.DataFrame, cells: Collection[str]) -> pd.DataFrame:
    """The largest log10 of an update norm over the median of the rows around it, of each cell.

    The first tenth of a run is left out. A row's norm is the maximum over the steps since the row
    before; in older records it is that of one step, and spikes between rows are unseen.

    Returns: columns id and roughness, of those of `cells` whose rows have an update norm.
    """
    worst = {}
    if UPDATES in rows:
        rows = rows[rows["id"].isin(cells) & (rows[UPDATES] > 0)]
        largest = rows[LARGEST].fillna(rows[UPDATES]) if LARGEST in rows else rows[UPDATES]
        rows = rows[["id", "step", UPDATES]].assign(largest=largest)
        for cell, own in rows.groupby("id"):
            late = own[own["step"] > WARM * own["step"].max()]
            if len(late) >= WINDOW:
                typical = np.log10(late[UPDATES].astype(float))
                around = typical.rolling(WINDOW, center=True, min_periods=WINDOW // 2 + 1).median()
                worst[cell] = float((np.log10(late["largest"].astype(float)) - around).max())
    return pd.DataFrame(
        {
            "id": pd.Series(list(worst), dtype=str),
            ROUGHNESS: pd.Series(list(worst.values()), dtype=float),
        }
    )


CLAIMS = (
    Claim(
        name="decay on a pretrained tower hurts",
        sentence="Weight decay on a pretrained image tower lowers its quality.",
        section="4.5",
        figure="fig_4",
        needs="model.init set, optimizer.image.wd_mult 0 and 1",
        test=decay_hurts,
    ),
    Claim(
        name="beta2 0.95 is steadier",
        sentence="Training is steadier with beta2 = 0.95 than with 0.999.",
        section="4.7",
        figure="fig_5",
        needs=f"optimizer.b2 0.95 and 0.999, equal in the rest, two seeds, with {UPDATES} in rows",
        test=lower_b2_is_steadier,
    ),
)
