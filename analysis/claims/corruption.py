"""Tests of the claim that sigmoid stands corrupted data better (Sec. 4.10, Fig. 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.finding import POINTS, Finding, all_positive, found, no_data
from analysis.intervals import PooledMeans, pooled_means
from analysis.varying import keys, most, same_fields, varying, with_fields

PARTS = ("data.corrupt.image", "data.corrupt.text", "data.corrupt.alignment")
# The five panels of Fig. 7, by which parts are corrupted with the same probability.
KINDS = {
    "image": (1, 0, 0),
    "text": (0, 1, 0),
    "batch": (0, 0, 1),
    "image & text": (1, 1, 0),
    "image, text & batch": (1, 1, 1),
}
Group = tuple[bool, float]  # drawn anew at each visit, and the probability


def more_robust(kind: str) -> Callable[[Evidence], Finding]:
    """The test for one of `KINDS`."""
    return lambda evidence: _test(evidence, kind)


def _test(evidence: Evidence, kind: str) -> Finding:
    """Sigmoid is ahead at the highest probability, and its lead grows with the probability.

    The paper does not say whether an example is corrupted once for good or anew at each visit:
    where a study has both, the claim must hold for both.
    """
    leads = _leads(evidence, kind)
    tops, slopes, said = [], [], []
    for redraw in sorted({redraw for redraw, _ in leads.means}):
        levels = sorted(p for drawn, p in leads.means if drawn == redraw)
        if len(levels) < 2:
            continue
        top = leads.contrast({(redraw, levels[-1]): 1.0})
        slope = leads.contrast(_slope(redraw, levels))
        tops.append(top)
        slopes.append(slope)
        how = "drawn anew" if redraw else "fixed"
        said.append(
            f"{top.estimate:+.2f} points at p = {levels[-1]:g}, {slope.estimate:+.2f} per unit "
            f"of p ({how})"
        )
    if not tops:
        return no_data(f"Needs both losses with and without corrupted {kind}, equal in the rest.")
    verdict, binding = all_positive(*tops, *slopes)
    return found(
        verdict,
        binding,
        unit=POINTS if binding in tops else "points per unit of p",
        cells=2 * sum(leads.counts.values()),
        sentence=f"Sigmoid's lead with corrupted {kind}: {'; '.join(said)}",
        means=leads,
        conditions=(*tops, *slopes),
    )


def _leads(evidence: Evidence, kind: str) -> PooledMeans:
    """Sigmoid minus softmax, paired by seed, by (redraw, p)."""
    cells = with_fields(evidence.cells, [*PARTS, "data.corrupt.redraw", "loss.pairs.kind"])
    cells = cells.assign(**{part: cells[part].astype(float).fillna(0.0) for part in PARTS})
    p = cells[list(PARTS)].max(axis=1)
    wanted = pd.Series(True, index=cells.index)
    for part, present in zip(PARTS, KINDS[kind], strict=True):
        wanted &= cells[part] == p * present
    pairs = (cells["loss.kind"] == "softmax") | (cells["loss.pairs.kind"] == "all")
    pool = cells[wanted & pairs].assign(p=p[wanted & pairs])
    if not (pool["p"] > 0).any():
        return pooled_means({})
    own = ("loss.", "optimizer.")  # each loss has settings and a recipe of its own
    chosen = varying(pool, ("p", "loss.kind"), ignoring=("data.corrupt.", *own))
    corrupted = chosen[chosen["p"] > 0]
    if corrupted.empty:
        return pooled_means({})
    settings = [name for name in same_fields(chosen, ()) if name.startswith(own)]
    chosen = pd.concat(
        most(same, keys(same, settings), ("p",)) for _, same in chosen.groupby("loss.kind")
    )
    done = chosen[(chosen["status"] == "done")]
    if evidence.metric not in done:
        return pooled_means({})
    redraws = corrupted["data.corrupt.redraw"].fillna(False).astype(bool)
    groups: dict[Any, list[float]] = {}
    for redraw in sorted(set(redraws)):
        own = done["data.corrupt.redraw"].fillna(False).astype(bool) == redraw
        same = done[own | (done["p"] == 0)]
        table = same.pivot_table(
            index=["p", "seed"], columns="loss.kind", values=evidence.metric, aggfunc="mean"
        )
        if {"sigmoid", "softmax"} <= set(table.columns):
            gaps = (table["sigmoid"] - table["softmax"]).dropna()
            for (level, _), gap in gaps.items():
                groups.setdefault((redraw, float(level)), []).append(float(gap))
    return pooled_means(groups, rounding=2 * evidence.rounding)


def _slope(redraw: bool, levels: list[float]) -> dict[Group, float]:
    """Weights of the least-squares slope against p."""
    middle = sum(levels) / len(levels)
    spread = sum((level - middle) ** 2 for level in levels)
    return {(redraw, level): (level - middle) / spread for level in levels}
