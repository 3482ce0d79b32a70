"""Tests of the claims about the recipe: decay on a pretrained tower, and beta2 (Sec. 4.5, 4.7)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.scope import scope
from analysis.claims.verdict import (
    POINTS,
    Finding,
    found,
    intersection_union,
    no_data,
    verdict_of,
    withheld,
)
from analysis.select.fields import keys, matched, same_fields, with_fields
from analysis.stats.intervals import Interval, PooledMeans, pooled_means

DECAY, WEIGHT = "optimizer.image.decay_times", "optimizer.weight_decay"
B2, STEADY, DEFAULT = "optimizer.b2", 0.95, 0.999
UPDATES = "train/update_norm"  # of the step of the row
LARGEST = "train/update_norm_max"  # of all steps since the last row; older records lack it
ROUGHNESS = "roughness"
WINDOW = 9  # logged lines around a line, whose median is what it is held against
WARM = 0.1  # of a run, left out: while the rate rises, updates grow by design
DENSE = 0.5  # of the steps must be logged: a spike lasts a few steps and shows in none beside them


def decay_hurts(evidence: Evidence) -> Finding:
    """A pretrained image tower ends better without weight decay than with, in all that is known.

    Cells that differ in `optimizer.image.decay_times` alone, 0 against 1, paired by seed: zero-
    shot quality, and the few-shot probe of the tower where it was recorded.
    """
    cells = with_fields(evidence.cells, ["model.init", DECAY, WEIGHT])
    done = cells[cells["model.init"].notna() & (cells["status"] == "done")]
    probes = [c for c in done if c.startswith("eval/few_shot/") and c.endswith("/top1")]
    gains: dict[str, tuple[Interval, PooledMeans]] = {}
    for metric in (evidence.metric, *probes):
        means = pooled_means(matched(done, DECAY, 0.0, 1.0, metric), rounding=evidence.rounding)
        if means.means:
            gains[metric] = (_mean(means), means)
    if not gains:
        return no_data(
            "Needs cells that start from a checkpoint, with the image tower's decay on and off."
        )
    verdict, binding = intersection_union(*(gain for gain, _ in gains.values()))
    means = next(means for gain, means in gains.values() if gain == binding)
    each = [f"{gain} points in {metric}" for metric, (gain, _) in gains.items()]
    decays = ", ".join(f"{value:g}" for value in sorted(set(done[WEIGHT].dropna())))
    return found(
        verdict,
        binding,
        unit=POINTS,
        cells=2 * sum(means.counts.values()),
        sentence=f"Without decay ({decays or 'unknown'} elsewhere) the pretrained tower gains "
        f"{'; '.join(each)}",
        means=means,
        scope=scope(done),
        conditions={metric: gain for metric, (gain, _) in gains.items()},
    )


def lower_b2_is_steadier(evidence: Evidence) -> Finding:
    """The norm of the updates spikes less with beta2 = 0.95 than with 0.999.

    A cell's roughness is the largest log10 of an update norm over the median of the rows around
    it, after the first tenth of the run. A row's norm is the maximum over the steps since the row
    before; in older records it is that of one step, and spikes between rows are unseen. Cells that
    differ in beta2 alone are paired by seed. A cell that diverged has no roughness; the sentence
    counts those.
    """
    cells = with_fields(evidence.cells, [B2])
    pair = cells[cells[B2].isin([STEADY, DEFAULT])]
    if set(pair[B2]) != {STEADY, DEFAULT}:
        return no_data("Needs cells that differ in optimizer.b2 alone, 0.95 and 0.999.")
    measured = pair.merge(roughness(evidence.rows), on="id", how="left")
    done = measured[measured["status"] == "done"]
    means = pooled_means(matched(done, B2, DEFAULT, STEADY, ROUGHNESS))
    if not means.means:
        return no_data(f"No pair of finished cells with beta2 0.95 and 0.999 logged {UPDATES}.")
    rougher = _mean(means)
    configurations = pd.Series(keys(done, same_fields(done, [B2])), index=done.index)
    compared = done[configurations.isin(means.means)]
    diverged = [
        int((measured["status"][measured[B2] == b2] == "diverged").sum())
        for b2 in (DEFAULT, STEADY)
    ]
    times = Interval(*(10**end for end in rougher))
    finding = found(
        verdict_of(rougher),
        rougher,
        unit="log10 of the worst spike",
        cells=2 * sum(means.counts.values()),
        sentence=f"The worst spike in the recorded update norms is {times:.2f} times as "
        f"high with beta2 0.999 as with 0.95; diverged: {diverged[0]} and {diverged[1]} cells",
        means=means,
        scope=scope(compared),
    )
    logged = logged_share(evidence.rows, set(compared["id"]))
    if logged >= DENSE:
        return finding
    return withheld(
        finding,
        because=f"A spike lasts a few steps, and as few as {logged:.1%} of the steps of a cell "
        "were logged: spikes in the rest cannot be seen.",
        decide="the same cells with maxima over every step in their rows",
    )


def logged_share(rows: pd.DataFrame, names: Collection[str]) -> float:
    """The share of steps whose update norms entered a row, of the cell where it is the least."""
    known = rows[rows["id"].isin(names) & (rows[UPDATES] > 0)]
    steps = known.groupby("id")["step"]
    share = steps.nunique() / steps.max()
    if LARGEST in known:  # a maximum over every step since the row before
        share[known[LARGEST].notna().groupby(known["id"]).all()] = 1.0
    return float(share.min())


def roughness(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns id and roughness, of the cells whose rows have an update norm."""
    if UPDATES not in rows:
        return pd.DataFrame({"id": pd.Series(dtype=str), ROUGHNESS: pd.Series(dtype=float)})
    known = rows[rows[UPDATES] > 0]
    largest = known[LARGEST].fillna(known[UPDATES]) if LARGEST in known else known[UPDATES]
    known = known[["id", "step", UPDATES]].assign(largest=largest)
    worst = {}
    for name, lines in known.groupby("id"):
        late = lines[lines["step"] > WARM * lines["step"].max()]
        if len(late) >= WINDOW:
            typical = np.log10(late[UPDATES].astype(float))
            around = typical.rolling(WINDOW, center=True, min_periods=WINDOW // 2 + 1).median()
            worst[name] = float((np.log10(late["largest"].astype(float)) - around).max())
    return pd.DataFrame({"id": list(worst), ROUGHNESS: list(worst.values())})


def _mean(means: PooledMeans) -> Interval:
    return means.contrast(dict.fromkeys(means.means, 1 / len(means.means)))
