"""Tests of the paper's claims about batch size and loss, on one batch-size panel (Fig. 2).

"Small" and "large" batches are the smallest and the largest quarter of the grid, at least one
size. Differences are sigmoid minus softmax, paired by seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis import panels, paper
from analysis.findings import Finding, Kind, all_positive, found, no_data, side
from analysis.intervals import (
    Interval,
    PooledMeans,
    by_group,
    paired_differences,
    pooled_means,
)

TOLERANCE = 1.0  # points: a gap or a gain below it counts as none
POINTS = "points"


@dataclass(frozen=True, kw_only=True)
class BatchData:
    """Quality by (loss, batch size), and its paired differences by batch size."""

    quality: PooledMeans
    differences: PooledMeans

    def sizes(self, loss: str | None = None) -> list[int]:
        """Batch sizes with this loss, or with a pair of both."""
        if loss is None:
            return sorted(self.differences.means)
        return sorted(size for kind, size in self.quality.means if kind == loss)


def from_cells(cells: pd.DataFrame, image: str, metric: str) -> BatchData:
    """The finished cells of the panel, see `panels.batch_sizes`."""
    return _batch_data(panels.batch_sizes(cells, image=image).done, metric)


@functools.cache
def from_paper(image: str) -> BatchData:
    """The paper's own panel of Fig. 2: one value per point, so estimates without intervals."""
    return _batch_data(paper.fig_2(image).assign(seed=0), "value")


def _batch_data(table: pd.DataFrame, value: str) -> BatchData:
    pairs = paired_differences(table, value)
    return BatchData(
        quality=pooled_means(by_group(table, ["loss.kind", "batch_size"], value)),
        differences=pooled_means(by_group(pairs, ["batch_size"], "difference")),
    )


def ahead_at_small(data: BatchData) -> Finding:
    """The mean difference over the small batches is above zero."""
    sizes = data.sizes()
    if not sizes:
        return no_data("No batch size has a finished sigmoid and softmax cell of one seed.")
    small = sizes[: quarter(sizes)]
    gap = data.differences.contrast(_mean(small))
    return found(
        side(gap),
        gap,
        unit=POINTS,
        cells=2 * _count(data, small),
        sentence=f"At {_at(small)} sigmoid is {_from_softmax(gap)}",
    )


def gap_closes(data: BatchData) -> Finding:
    """The difference at the small batches is larger than at the large ones."""
    sizes = data.sizes()
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a pair of finished cells.")
    k = quarter(sizes)
    small, large = sizes[:k], sizes[-k:]
    change = data.differences.contrast(
        _mean(small) | {g: -w for g, w in _mean(large).items()},
    )
    return found(
        side(change),
        change,
        unit=POINTS,
        cells=2 * _count(data, [*small, *large]),
        sentence=f"Sigmoid's lead is {change.estimate:+.2f} points larger at {_at(small)} "
        f"than at {_at(large)}",
    )


def level_at_large(data: BatchData) -> Finding:
    """The mean difference over the large batches is within the tolerance of zero."""
    sizes = data.sizes()
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a pair of finished cells.")
    large = sizes[-quarter(sizes) :]
    gap = data.differences.contrast(_mean(large))
    verdict, _ = all_positive(
        Interval(TOLERANCE - gap.estimate, TOLERANCE - gap.high, TOLERANCE - gap.low),
        Interval(TOLERANCE + gap.estimate, TOLERANCE + gap.low, TOLERANCE + gap.high),
    )
    return found(
        verdict,
        gap,
        unit=POINTS,
        cells=2 * _count(data, large),
        sentence=f"At {_at(large)} sigmoid is {_from_softmax(gap)}; level means "
        f"within {TOLERANCE:g}",
    )


def too_large_hurts(data: BatchData) -> Finding:
    """The best smaller batch beats the largest one.

    The best of several means is too good by selection. So every smaller batch is compared with
    the largest by intervals that hold at once: the largest of their lower ends bounds the best
    one's true lead, whichever it is.
    """
    sizes = data.sizes("sigmoid")
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a finished sigmoid cell.")
    *smaller, largest = sizes
    critical = data.quality.critical(comparisons=len(smaller), among=len(sizes))
    leads = [_step(data, size, largest, critical) for size in smaller]
    lead = Interval(*(max(ends) for ends in zip(*leads, strict=True)))
    best = smaller[max(range(len(leads)), key=lambda i: leads[i].estimate)]
    return found(
        side(lead),
        lead,
        unit=POINTS,
        cells=sum(data.quality.counts[("sigmoid", size)] for size in sizes),
        sentence=f"Of the smaller batches B = {best} is best; at the same budget it gains "
        f"{lead.estimate:+.2f} points over the largest, B = {largest}",
    )


def saturates(data: BatchData) -> Finding:
    """There is a batch below the largest beyond which nothing gains more than the tolerance.

    Its interval runs over the batches that simultaneous intervals of all gains leave possible;
    it ends at the largest batch when a gain beyond the tolerance cannot be ruled out before.
    """
    sizes = data.sizes("sigmoid")
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a finished sigmoid cell.")
    many = len(sizes) * (len(sizes) - 1) // 2
    critical = data.quality.critical(comparisons=many, among=len(sizes))
    largest = sizes[-1]

    def first(end: str) -> float:
        for i, size in enumerate(sizes[:-1]):
            gains = [getattr(_step(data, more, size, critical), end) for more in sizes[i + 1 :]]
            if max(gains) <= TOLERANCE:
                return float(size)
        return float(largest)

    batch = Interval(first("estimate"), math.nan, math.nan)
    verdict: Kind = "undecided"
    if data.quality.dof:
        batch = Interval(batch.estimate, first("low"), first("high"))
        if batch.high < largest:
            verdict = "reproduced"
        elif batch.low == largest:
            verdict = "contradicted"
    return found(
        verdict,
        batch,
        unit="batch size",
        cells=sum(data.quality.counts[("sigmoid", size)] for size in sizes),
        sentence=f"From B = {batch.estimate:.0f} on no larger batch gains more than "
        f"{TOLERANCE:g} point; the largest of the grid is {largest}",
    )


def quarter(sizes: Sequence[int]) -> int:
    """How many batch sizes count as small, and as large."""
    return max(1, round(len(sizes) / 4))


def _step(data: BatchData, size: int, minus: int, critical: float) -> Interval:
    """Sigmoid quality at one batch size minus another, one of several that hold at once."""
    weights = {("sigmoid", size): 1.0, ("sigmoid", minus): -1.0}
    return data.quality.contrast(weights, critical=critical)


def _from_softmax(gap: Interval) -> str:
    where = "ahead of" if gap.estimate >= 0 else "behind"
    return f"{abs(gap.estimate):.2f} points {where} softmax"


def _mean(sizes: Sequence[int]) -> dict[int, float]:
    return dict.fromkeys(sizes, 1 / len(sizes))


def _count(data: BatchData, sizes: Sequence[int]) -> int:
    return sum(data.differences.counts[size] for size in sizes)


def _at(sizes: Sequence[int]) -> str:
    return f"B = {', '.join(str(size) for size in sizes)}"
